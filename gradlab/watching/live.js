"use strict";
// Asks for the state once a second and shows it. Whatever comes from a run is set as text.
const EVERY = 1000, HIDDEN = 5000, W = 480, H = 250, BANDS = 3;
const EDGE = { left: 58, right: 14, top: 10, bottom: 38 };
const DASHES = ["", "7 3", "2 3", "9 3 2 3", "5 2 1 2 1 2", "12 4"];
const byId = (id) => document.getElementById(id);
let mark = "", state = null, skew = 0;

// ---- words
const number = (v) => {
  if (v === null || v === undefined) return "–";
  const size = Math.abs(v);
  if (size === 0) return "0";
  if (size >= 1e5 || size < 1e-3) return Number(v.toPrecision(3)).toExponential().replace("-", "−").replace("e-", "e−").replace("e+", "e");
  return String(Number(v.toPrecision(4))).replace("-", "−");
};
const whole = (v) => Number.isInteger(v) ? v.toLocaleString("en-US") : number(v);
const lasting = (s) => {
  for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60]]) {
    if (s >= 2 * size) return `${Number((s / size).toPrecision(2))} ${unit}`;
  }
  return `${Math.round(s)} s`;
};
const ends = (low, high) => low === null || high === null || low === high ? "" : `${number(low)} … ${number(high)}`;

// ---- elements
function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}
function drawn(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// ---- head, events, values, tensors
function showHead() {
  const { progress, facts } = state;
  byId("title").textContent = state.title || state.run;
  byId("facts").replaceChildren(...Object.entries({ run: state.run, ...facts }).map(([name, value]) => {
    const box = element("div");
    box.append(element("dt", name), element("dd", value));
    return box;
  }));
  byId("state").dataset.phase = state.phase;
  say(state.told[0].toUpperCase() + state.told.slice(1));
  byId("far").hidden = !progress;
  const share = progress && progress.share !== null ? Math.round(100 * progress.share) + "%" : "";
  document.title = [share, state.title || "gradlab watch", "gradlab"].filter(Boolean).join(" · ");
  if (!progress) return;
  byId("bar").hidden = progress.share === null;
  if (progress.share !== null) byId("bar").value = progress.share;
  const going = state.phase === "running" || state.phase === "silent";
  const total = progress.total === null ? "" : ` of ${whole(progress.total)} (${share})`;
  const rate = going && progress.rate !== null ? `${number(progress.rate)} per second` : "";
  const left = going && progress.left ? `about ${lasting(progress.left)} left` : "";
  const lost = state.lost ? `${state.lost} rows of the file are lost` : "";
  byId("count").textContent =
    [`${progress.across} ${whole(progress.done)}${total}`, rate, left, lost].filter(Boolean).join(", ");
}
function say(words) {
  if (byId("phase").textContent !== words) byId("phase").textContent = words;
}
function showAge() {
  const telling = state && state.written !== null && ["running", "silent", "stopped"].includes(state.phase);
  byId("age").textContent = telling
    ? `last row ${lasting(Math.max(0, Date.now() / 1000 + skew - state.written))} ago` : "";
}
function showEvents() {
  const across = state.progress ? state.progress.across : "";
  byId("number").textContent = state.events.length ? ` (${state.events.length})` : "";
  byId("quiet").hidden = state.events.length > 0;
  byId("events").replaceChildren(...state.events.toReversed().map((event) => {
    const item = element("li"), told = element("span");
    if (event.kind !== "run") told.append(element("b", event.kind));
    told.append(event.text);
    item.append(element("span", `${across} ${whole(event.at)}`, { class: "at" }), told);
    return item;
  }));
}
function showLatest() {
  byId("latest").replaceChildren(...state.latest.map((reading) => {
    const box = element("div");
    box.append(element("dt", `${reading.name}${reading.unit ? ` [${reading.unit}]` : ""}`),
      element("dd", reading.shown, { class: "value" }),
      element("dd", [reading.ends, reading.old ? `at ${whole(reading.at)}` : ""].filter(Boolean).join(", "), { class: "ends" }));
    return box;
  }));
}
function showLayers() {
  byId("tensors").hidden = state.layers.length === 0;
  byId("layers").replaceChildren(...state.layers.map((layer) => {
    const row = element("tr");
    row.append(element("td", layer.name), ...["norm", "ratio", "nonfinite", "zero"]
      .map((name) => element("td", number(layer[name]))));
    return row;
  }));
}

// ---- axes
function steps(low, high, most) {
  const raw = (high - low) / most, size = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((k) => k * size).find((each) => each >= raw);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) found.push(k * step + 0);  // + 0: never −0
  return found;
}
function decades(low, high) {
  const first = Math.ceil(Math.log10(low) - 1e-9), last = Math.floor(Math.log10(high) + 1e-9);
  if (last - first < 1) return steps(low, high, 4).filter((v) => v > 0);
  const every = Math.ceil((last - first + 1) / 5), found = [];
  for (let k = first; k <= last; k += every) found.push(10 ** k);
  return found;
}
function vertical(chart) {
  const all = chart.curves.flatMap((c) => [...c.value, ...(c.low || []), ...(c.high || [])])
    .concat(Object.values(chart.levels)).filter((v) => v !== null);
  const positive = all.filter((v) => v > 0);
  const log = chart.scale === "log" && positive.length > 0;
  const among = log ? positive : all;
  let low = among.reduce((a, b) => Math.min(a, b), Infinity), high = among.reduce((a, b) => Math.max(a, b), -Infinity);
  if (log) [low, high] = high / low < 1.5 ? [low / 1.5, high * 1.5] : [low / 1.1, high * 1.1];
  else {
    const margin = high > low ? 0.05 * (high - low) : Math.abs(high) * 0.1 || 1;
    [low, high] = [low >= 0 && low - margin < 0 ? 0 : low - margin, high + margin];
  }
  const f = log ? Math.log : (v) => v, span = f(high) - f(low), inner = H - EDGE.top - EDGE.bottom;
  return { log, ticks: log ? decades(low, high) : steps(low, high, 5),
    place: (v) => H - EDGE.bottom - inner * (f(v) - f(low)) / span };
}
function horizontal(chart) {  // one axis for all charts that count the same, so that they can be compared
  const all = state.charts.filter((other) => other.across === chart.across)
    .flatMap((other) => other.curves.flatMap((c) => [c.x[0], c.x[c.x.length - 1]]));
  let low = Math.min(...all), high = Math.max(...all);
  if (high === low) [low, high] = [low - 0.5, high + 0.5];
  const inner = W - EDGE.left - EDGE.right;
  return { ticks: steps(low, high, 5).filter(Number.isInteger), place: (v) => EDGE.left + inner * (v - low) / (high - low) };
}

// ---- curves
function pieces(curve, shown) {
  const found = [[]];
  curve.value.forEach((v, k) => {
    if (v !== null && shown(v)) found[found.length - 1].push(k);
    else if (found[found.length - 1].length) found.push([]);
  });
  return found.filter((piece) => piece.length);
}
function addCurve(svg, curve, k, x, y, banded) {
  const shown = (v) => !y.log || v > 0, bottom = H - EDGE.bottom;
  const at = (j, v) => `${x.place(curve.x[j]).toFixed(1)},${(shown(v) ? y.place(v) : bottom).toFixed(1)}`;
  const colour = `c${k % 6}`;
  for (const piece of banded && curve.low !== null ? pieces(curve, () => true) : []) {
    const inside = piece.filter((j) => curve.low[j] !== null && curve.high[j] !== null && shown(curve.high[j]));
    if (!inside.length) continue;
    const path = inside.map((j) => at(j, curve.high[j])).concat(inside.toReversed().map((j) => at(j, curve.low[j])));
    svg.append(drawn("path", { class: `band ${colour}`, d: `M${path.join("L")}Z` }));
    if (inside.length === 1) svg.append(drawn("path", { class: colour, d: `M${at(inside[0], curve.low[inside[0]])}L${at(inside[0], curve.high[inside[0]])}` }));
  }
  const few = curve.value.filter((v) => v !== null).length <= 40;
  for (const piece of pieces(curve, shown)) {
    svg.append(drawn("path", { class: `line ${colour}`, "stroke-dasharray": DASHES[k % 6], d: `M${piece.map((j) => at(j, curve.value[j])).join("L")}` }));
    for (const j of few || piece.length === 1 ? piece : []) {
      svg.append(drawn("circle", { class: colour, cx: x.place(curve.x[j]), cy: y.place(curve.value[j]), r: 2.5 }));
    }
  }
  if (!y.log || curve.high === null) return;
  curve.value.forEach((v, j) => {  // not above zero: no place on this axis but "at most"
    if (v === null || v > 0 || curve.high[j] === null || !(curve.high[j] > 0)) return;
    const [cx, cy] = [x.place(curve.x[j]), y.place(curve.high[j])];
    svg.append(drawn("path", { class: `atmost ${colour}`, d: `M${cx - 4},${cy - 4}h8l-4,7Z` }));
  });
}
function addAxes(svg, chart, x, y) {
  const bottom = H - EDGE.bottom, right = W - EDGE.right;
  for (const v of y.ticks) {
    svg.append(drawn("path", { class: "rule", d: `M${EDGE.left},${y.place(v)}H${right}` }));
    svg.append(drawn("text", { x: EDGE.left - 7, y: y.place(v) + 4, "text-anchor": "end" }, number(v)));
  }
  for (const v of x.ticks) {
    svg.append(drawn("path", { class: "axis", d: `M${x.place(v)},${bottom}v4` }));
    const anchor = x.place(v) > right - 20 ? "end" : "middle";
    svg.append(drawn("text", { x: anchor === "end" ? right + 4 : x.place(v), y: bottom + 17, "text-anchor": anchor }, whole(v)));
  }
  svg.append(drawn("path", { class: "axis", d: `M${EDGE.left},${bottom}H${right}` }));
  svg.append(drawn("text", { x: (EDGE.left + right) / 2, y: H - 5, "text-anchor": "middle" }, chart.across));
  for (const [name, v] of Object.entries(chart.levels)) {
    svg.append(drawn("path", { class: "level", d: `M${EDGE.left},${y.place(v)}H${right}` }));
    svg.append(drawn("text", { class: "level-name", x: right, y: y.place(v) - 4, "text-anchor": "end" }, `${name} ${number(v)}`));
  }
}

// ---- charts
const figures = new Map();
function figureOf(name) {
  if (!figures.has(name)) {
    const box = element("figure"), svg = drawn("svg", { viewBox: `0 0 ${W} ${H}`, tabindex: "0", role: "img" });
    const made = { box, svg, head: element("h3"), keys: element("span"), about: element("span", undefined, { class: "about" }), said: element("output"), at: null, chart: null };
    const caption = element("figcaption");
    caption.append(made.keys, made.about, made.said);
    box.append(made.head, svg, caption);
    svg.addEventListener("pointermove", (event) => point(made, event));
    svg.addEventListener("pointerleave", () => choose(made, null));
    svg.addEventListener("blur", () => choose(made, null));
    svg.addEventListener("keydown", (event) => step(made, event));
    figures.set(name, made);
  }
  return figures.get(name);
}
function showCharts() {
  const flat = state.charts.filter(constant);
  byId("constant").textContent = flat.length ? `Constant so far: ${flat.map((chart) =>
    `${chart.title} ${chart.curves.map((c) => `${c.label} ${number(last(c))}`.trim()).join(", ")}`).join("; ")}.` : "";
  const drawn = state.charts.filter((chart) => !constant(chart));
  place("charts", drawn.filter((chart) => chart.across !== "horizon"));
  place("horizons", drawn.filter((chart) => chart.across === "horizon"));
}
function place(id, charts) {
  const made = charts.map((chart) => Object.assign(figureOf(chart.name), { chart })), there = [...byId(id).children];
  byId(id).parentElement.hidden = made.length === 0 && id === "horizons";
  if (there.length !== made.length || made.some((each, k) => each.box !== there[k])) {
    byId(id).replaceChildren(...made.map((each) => each.box));
  }
  made.forEach(show);
}
function show(made) {
  const { chart, svg } = made, x = horizontal(chart), y = vertical(chart);
  Object.assign(made, { x, y });
  made.head.replaceChildren(`${chart.title} `, element("span", chart.unit ? `[${chart.unit}]` : ""));
  svg.replaceChildren();
  addAxes(svg, chart, x, y);
  chart.curves.forEach((curve, k) => addCurve(svg, curve, k, x, y, chart.curves.length <= BANDS));
  svg.setAttribute("aria-label", `${chart.title}: ${chart.curves.map((c) => `${c.label} ${number(last(c))}`.trim()).join(", ")}`);
  made.keys.replaceChildren(...(chart.curves.length > 1 ? chart.curves.map(key) : []));
  made.about.textContent = chart.about;
  choose(made, made.at);
}
const constant = (chart) => chart.curves.every((curve) =>
  new Set([...curve.value, ...(curve.low || []), ...(curve.high || [])].filter((v) => v !== null)).size === 1);
const last = (curve) => curve.value.findLast((v) => v !== null);
function key(curve, k) {
  const box = element("span", undefined, { class: "key" }), swatch = drawn("svg", { class: "swatch", viewBox: "0 0 34 10", "aria-hidden": "true" });
  swatch.append(drawn("path", { class: `line c${k % 6}`, "stroke-dasharray": DASHES[k % 6], d: "M1,5H33" }));
  box.append(swatch, curve.label);
  return box;
}

// ---- reading values
const row = (curve, at) => curve.x.reduce((best, x, k) => Math.abs(x - at) < Math.abs(curve.x[best] - at) ? k : best, 0);
function choose(made, at) {
  made.at = at;
  made.svg.querySelector(".cursor")?.remove();
  if (at === null || !made.chart) { made.said.textContent = ""; return; }
  const k = row(made.chart.curves[0], at), x = made.chart.curves[0].x[k];
  made.svg.append(drawn("path", { class: "cursor", d: `M${made.x.place(x)},${EDGE.top}V${H - EDGE.bottom}` }));
  made.said.textContent = `${made.chart.across} ${whole(x)}: ` + made.chart.curves.map((curve) => {
    const j = row(curve, x), range = curve.low === null ? "" : ends(curve.low[j], curve.high[j]);
    return `${curve.label} ${number(curve.value[j])}${range ? ` (${range})` : ""}`.trim();
  }).join("; ");
}
function point(made, event) {
  const box = made.svg.getBoundingClientRect(), [low, high] = [made.chart.curves[0].x[0], made.chart.curves[0].x.at(-1)];
  const share = ((event.clientX - box.left) / box.width * W - made.x.place(low)) / (made.x.place(high) - made.x.place(low) || 1);
  choose(made, low + Math.min(1, Math.max(0, share)) * (high - low));
}
function step(made, event) {
  const xs = made.chart.curves[0].x, now = made.at === null ? xs.length - 1 : row(made.chart.curves[0], made.at);
  const to = { ArrowLeft: now - (made.at !== null), ArrowRight: now + 1, Home: 0, End: xs.length - 1 }[event.key];
  if (event.key === "Escape") choose(made, null);
  if (to === undefined) return;
  event.preventDefault();
  choose(made, xs[Math.min(xs.length - 1, Math.max(0, to))]);
}

// ---- asking
async function answered() {
  try {
    return await fetch("/state.json", { headers: mark ? { "If-None-Match": mark } : {}, signal: AbortSignal.timeout(10000) });
  } catch {
    return null;
  }
}
async function ask() {
  const answer = await answered();
  if (answer === null) {
    byId("state").dataset.phase = "lost";
    say("No answer from gradlab watch: it has ended. What it showed last stays here.");
    byId("age").textContent = "";
  } else {
    skew = (Date.parse(answer.headers.get("Date")) - Date.now()) / 1000 || 0;
    if (answer.status === 200) {
      state = await answer.json();
      mark = answer.headers.get("ETag");
      showHead(); showEvents(); showLatest(); showCharts(); showLayers();
    } else if (byId("state").dataset.phase === "lost") showHead();
    showAge();
  }
  setTimeout(ask, document.hidden ? HIDDEN : EVERY);
}
document.addEventListener("visibilitychange", () => { if (!document.hidden && state) showAge(); });
ask();
