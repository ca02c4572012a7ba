// The page without this file is whole: one long strip. This deals it into rows, zooms, and shows a tip for each thing.
"use strict";
const timeline = document.getElementById("timeline"), whole = timeline.firstElementChild;
const seconds = +timeline.dataset.seconds, uncut = timeline.dataset.uncut.split(" ").map((pair) => pair.split(",").map(Number));
const SPANS = [0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600].filter((s) => s < seconds && seconds / s <= 400).concat(seconds);
const number = (el, name) => parseFloat(el.style.getPropertyValue(name));
const LANES = [...whole.querySelectorAll(".lane")].map((lane) => ({
  lane,
  things: [...lane.children].filter((el) => el.tagName !== "H3").map((el) => ({ el, a: number(el, "--a"), b: number(el, "--b") })),
}));

// -- names: what the file says once, or leaves out, to be small

const NAMED = ".bar, .mark, u, .bracket";
for (const el of whole.querySelectorAll(NAMED)) {
  const says = timeline.getAttribute(`data-${el.classList[1]}`) ?? `Heard: ${el.textContent}`;
  const lines = el.getAttribute("aria-label")?.split("\n"), caption = el.nextElementSibling;
  if (lines && caption?.matches(".said")) el.setAttribute("aria-label", lines.toSpliced(1, 0, `“${caption.textContent}”`).join("\n"));
  if (!lines) el.setAttribute("aria-label", `${says}\n${clock(number(el, "--a"))}`);
  el.setAttribute("role", "img");
  el.setAttribute("tabindex", "-1");
}
for (const el of whole.querySelectorAll("s, .without")) el.ariaHidden = "true";

// -- rows

function rows(span) { // as `rows` in picture.py
  const starts = [0];
  for (let end = span; end < seconds; end = starts.at(-1) + span) {
    const early = uncut.find(([begins, ends]) => begins < end && end < ends)?.[0] ?? end;
    starts.push(early > end - span / 2 ? early : end);
  }
  return starts;
}

function clock(at) {
  const hundredths = Math.round(at * 100), minutes = Math.floor(hundredths / 6000);
  return `${minutes}:${((hundredths % 6000) / 100).toFixed(2).padStart(5, "0").replace(/\.00$|(?<=\.\d)0$/, "")}`;
}

function deal(span) {
  const grid = [0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60].find((g) => span / g <= 20) ?? span / 10;
  const starts = rows(span);
  timeline.replaceChildren(...starts.map((t, n) => {
    const next = starts[n + 1] ?? Infinity, length = Math.min(span, next - t, seconds - t);
    const strip = whole.cloneNode(false), plot = whole.firstElementChild.cloneNode(false), axis = document.createElement("div");
    strip.style.setProperty("--t", t);
    strip.style.setProperty("--s", length);
    strip.style.setProperty("--w", span);
    strip.setAttribute("aria-label", `${clock(t)} to ${clock(t + length)}`);
    axis.className = "axis";
    axis.ariaHidden = "true";
    for (let k = Math.ceil(t / grid); k * grid < t + length; k++) {
      const tick = document.createElement("span");
      tick.style.setProperty("--a", k * grid);
      tick.textContent = k % 2 || k * grid > t + length - span * 0.03 ? "" : clock(k * grid);
      axis.append(tick);
    }
    plot.append(axis, ...LANES.map(({ lane, things }) => {
      const part = lane.cloneNode(false);
      part.append(...[...lane.querySelectorAll("h3")].map((name) => name.cloneNode(true)));
      for (const { el, a, b } of things) {
        const at = el.matches(".ends") ? b : Number.isNaN(b) || el.matches("s") ? a : null; // in one row, or in many
        if (at === null ? a >= next || (a < t && b <= t) : at < t || at >= next) continue;
        const copy = el.cloneNode(true);
        if (a < t) copy.removeAttribute("id");
        copy.classList.toggle("goes-on", a < t);
        copy.classList.toggle("continues", b > next);
        copy.classList.toggle("silent", number(el, "--u") >= next); // its second part is in a later row
        part.append(copy);
      }
      return part;
    }));
    strip.append(plot);
    return strip;
  }));
  timeline.classList.add("dealt");
  timeline.classList.toggle("near", span <= 2); // there is room for the words as they came
  timeline.classList.toggle("far", span >= 60);
  timeline.classList.toggle("farther", span > 150);
}

// -- zoom

const controls = document.querySelector(".zoom"), [out, inn] = controls.querySelectorAll("button");
let zoom = Math.max(0, SPANS.findIndex((s) => s >= Math.min(+timeline.dataset.span, seconds)));
function show(to) {
  const top = [...timeline.children].find((strip) => strip.getBoundingClientRect().bottom > 0);
  const at = timeline.classList.contains("dealt") && timeline.getBoundingClientRect().top < 0 ? number(top, "--t") : null;
  zoom = Math.min(Math.max(to, 0), SPANS.length - 1);
  hide();
  deal(SPANS[zoom]);
  things()[0]?.setAttribute("tabindex", "0");
  out.disabled = zoom === SPANS.length - 1;
  inn.disabled = zoom === 0;
  controls.querySelector("output").value = zoom === SPANS.length - 1 ? "the whole call" : `${SPANS[zoom]} s in a row`;
  if (at !== null) [...timeline.children].findLast((strip) => number(strip, "--t") <= at)?.scrollIntoView();
}
out.onclick = () => show(zoom + 1);
inn.onclick = () => show(zoom - 1);
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "+" || event.key === "=") show(zoom - 1);
  else if (event.key === "-") show(zoom + 1);
  else if (event.key === "Escape") hide();
  else if (timeline.contains(event.target)) step(event);
});

// -- tips, by pointer and by key

const tip = document.getElementById("tip");
const things = () => [...timeline.querySelectorAll(NAMED)];
function tell(el, x, y) {
  tip.replaceChildren(...el.getAttribute("aria-label").split("\n").map((line) => Object.assign(document.createElement("p"), { textContent: line })));
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(8, Math.min(x + 12, innerWidth - box.width - 8))}px`;
  tip.style.top = `${y + 18 + box.height > innerHeight ? Math.max(8, y - box.height - 14) : y + 18}px`;
}
function hide() { tip.hidden = true; }
timeline.addEventListener("pointermove", (event) => {
  const el = event.target.closest(NAMED);
  if (el) tell(el, event.clientX, event.clientY);
  else hide();
});
timeline.addEventListener("pointerleave", hide);
timeline.addEventListener("focusout", hide);
timeline.addEventListener("focusin", (event) => {
  const box = event.target.getBoundingClientRect();
  if (event.target.matches(NAMED)) tell(event.target, box.left, box.bottom - 8);
});
function step(event) { // left and right: in time, in its lane; up and down: to what is nearest in the next lane
  const all = things(), here = all.indexOf(event.target.closest(NAMED)), at = (el) => number(el, "--a");
  if (here < 0 || !event.key.startsWith("Arrow")) return;
  event.preventDefault();
  const lane = (el) => el.parentElement.className, from = all[here], names = [...new Set(all.map(lane))];
  let to;
  if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
    const mine = all.filter((el) => lane(el) === lane(from)).sort((one, two) => at(one) - at(two));
    to = mine[mine.indexOf(from) + (event.key === "ArrowLeft" ? -1 : 1)];
  } else {
    const order = LANES.map(({ lane }) => lane.className).filter((name) => names.includes(name));
    const next = order[order.indexOf(lane(from)) + (event.key === "ArrowUp" ? -1 : 1)];
    to = all.filter((el) => lane(el) === next).sort((one, two) => Math.abs(at(one) - at(from)) - Math.abs(at(two) - at(from)))[0];
  }
  if (!to) return;
  all.forEach((el) => el.setAttribute("tabindex", "-1"));
  to.setAttribute("tabindex", "0");
  to.focus();
}

controls.hidden = false;
show(zoom);
