// ==== charts: axes, curves with bands, a legend, and values where one points or goes by keys
const W = 480, H = 250, EDGE = { left: 58, right: 14, top: 10, bottom: 38 };
const DASHES = ["", "7 3", "2 3", "9 3 2 3", "5 2 1 2 1 2", "12 4"];
const BANDS = 3;  // curves whose bands are drawn: more would hide each other
const FEW = 40;  // values that are marked each
const figures = new Map();

// ---- axes
function steps(low, high, most) {
  const raw = (high - low) / most, size = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((k) => k * size).find((each) => each >= raw), found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) {
    found.push(k * step + 0);  // + 0: never −0
  }
  return found;
}
function decades(low, high) {
  const first = Math.ceil(Math.log10(low) - 1e-9), last = Math.floor(Math.log10(high) + 1e-9);
  if (last - first < 1) return steps(low, high, 4).filter((v) => v > 0);
  const every = Math.ceil((last - first + 1) / 5), found = [];
  for (let k = first; k <= last; k += every) found.push(10 ** k);
  return found;
}
const smallest = (values) => values.reduce((a, b) => Math.min(a, b), Infinity);
const largest = (values) => values.reduce((a, b) => Math.max(a, b), -Infinity);
function vertical(chart) {
  const all = chart.curves.flatMap((c) => [...c.value, ...(c.low || []), ...(c.high || [])])
    .concat(Object.values(chart.levels)).filter((v) => v !== null);
  const positive = all.filter((v) => v > 0), log = chart.scale === "log" && positive.length > 0;
  let low = smallest(log ? positive : all), high = largest(log ? positive : all);
  if (log) [low, high] = high / low < 1.5 ? [low / 1.5, high * 1.5] : [low / 1.1, high * 1.1];
  else {
    const margin = high > low ? 0.05 * (high - low) : Math.abs(high) * 0.1 || 1;
    [low, high] = [low >= 0 && low - margin < 0 ? 0 : low - margin, high + margin];
  }
  const f = log ? Math.log : (v) => v, span = f(high) - f(low);
  const inner = H - EDGE.top - EDGE.bottom;
  return { log, ticks: log ? decades(low, high) : steps(low, high, 5),
    place: (v) => H - EDGE.bottom - inner * (f(v) - f(low)) / span };
}
function horizontal(chart) {  // one for all charts that count the same, to be compared
  const all = state.charts.filter((other) => other.across === chart.across)
    .flatMap((other) => other.curves.flatMap((c) => [c.x[0], c.x.at(-1)]));
  let low = smallest(all), high = largest(all);
  if (high === low) [low, high] = [low - 0.5, high + 0.5];
  const inner = W - EDGE.left - EDGE.right;
  return { ticks: steps(low, high, 5).filter(Number.isInteger),
    place: (v) => EDGE.left + inner * (v - low) / (high - low) };
}
function addAxes(svg, chart, x, y) {
  const bottom = H - EDGE.bottom, right = W - EDGE.right;
  const text = (words, x, y, anchor) =>
    svg.append(drawn("text", { x, y, "text-anchor": anchor }, words));
  for (const v of y.ticks) {
    svg.append(drawn("path", { class: "rule", d: `M${EDGE.left},${y.place(v)}H${right}` }));
    text(number(v), EDGE.left - 7, y.place(v) + 4, "end");
  }
  for (const v of x.ticks) {
    svg.append(drawn("path", { class: "axis", d: `M${x.place(v)},${bottom}v4` }));
    const late = x.place(v) > right - 20;  // would leave the picture
    text(whole(v), late ? right + 4 : x.place(v), bottom + 17, late ? "end" : "middle");
  }
  svg.append(drawn("path", { class: "axis", d: `M${EDGE.left},${bottom}H${right}` }));
  text(chart.across, (EDGE.left + right) / 2, H - 5, "middle");
  for (const [name, v] of Object.entries(chart.levels)) {
    svg.append(drawn("path", { class: "level", d: `M${EDGE.left},${y.place(v)}H${right}` }));
    text(`${name} ${number(v)}`, right, y.place(v) - 4, "end");
  }
}

// ---- curves
function pieces(curve, shown) {  // between gaps
  const found = [[]];
  curve.value.forEach((v, k) => {
    if (v !== null && shown(v)) found.at(-1).push(k);
    else if (found.at(-1).length) found.push([]);
  });
  return found.filter((piece) => piece.length);
}
function placed(curve, x, y) {  // the path through some rows of one of the curve's columns
  const height = (v) => y.log && v <= 0 ? H - EDGE.bottom : y.place(v);
  return (rows, values) =>
    rows.map((j) => `${x.place(curve.x[j]).toFixed(1)},${height(values[j]).toFixed(1)}`);
}
function addBand(svg, curve, colour, x, y) {
  const along = placed(curve, x, y);
  const has = (j) =>
    curve.low[j] !== null && curve.high[j] !== null && !(y.log && curve.high[j] <= 0);
  for (const piece of pieces(curve, () => true)) {
    const rows = piece.filter(has);
    if (!rows.length) continue;
    const around = [...along(rows, curve.high), ...along(rows.toReversed(), curve.low)].join("L");
    svg.append(drawn("path", { class: `band ${colour}`, d: `M${around}Z` }));
    if (rows.length === 1) svg.append(drawn("path", { class: colour, d: `M${around}` }));
  }
}
function addCurve(svg, curve, k, x, y, banded) {
  const shown = (v) => !y.log || v > 0, colour = `c${k % 6}`, along = placed(curve, x, y);
  if (banded && curve.low !== null) addBand(svg, curve, colour, x, y);
  const few = curve.value.filter((v) => v !== null).length <= FEW;
  for (const piece of pieces(curve, shown)) {
    const d = `M${along(piece, curve.value).join("L")}`;
    svg.append(drawn("path", { class: `line ${colour}`, "stroke-dasharray": DASHES[k % 6], d }));
    for (const j of few || piece.length === 1 ? piece : []) {
      const [cx, cy] = [x.place(curve.x[j]), y.place(curve.value[j])];
      svg.append(drawn("circle", { class: colour, cx, cy, r: 2.5 }));
    }
  }
  if (y.log && curve.high !== null) addAtMost(svg, curve, colour, x, y);
}
function addAtMost(svg, curve, colour, x, y) {  // estimates not above 0 have no place on this axis
  curve.value.forEach((v, j) => {
    if (v === null || v > 0 || !(curve.high[j] > 0)) return;
    const [cx, cy] = [x.place(curve.x[j]), y.place(curve.high[j])];
    svg.append(drawn("path", { class: `atmost ${colour}`, d: `M${cx - 4},${cy - 4}h8l-4,7Z` }));
  });
}

// ---- figures
const last = (curve) => curve.value.findLast((v) => v !== null);
const lasts = (chart) =>
  chart.curves.map((curve) => `${curve.label} ${number(last(curve))}`.trim()).join(", ");
const constant = (chart) => chart.curves.every((curve) => {
  const all = [curve.value, curve.low || [], curve.high || []].flat();
  return new Set(all.filter((v) => v !== null)).size === 1;
});
function showCharts() {
  const flat = state.charts.filter(constant).map((chart) => `${chart.title} ${lasts(chart)}`);
  byId("constant").textContent = flat.length ? `Constant so far: ${flat.join("; ")}.` : "";
  const moving = state.charts.filter((chart) => !constant(chart));
  place("charts", moving.filter((chart) => chart.across !== "horizon"));
  place("horizons", moving.filter((chart) => chart.across === "horizon"));
}
function place(id, charts) {
  const made = charts.map((chart) => Object.assign(figureOf(chart.name), { chart }));
  const there = [...byId(id).children];
  byId(id).parentElement.hidden = made.length === 0 && id === "horizons";
  if (there.length !== made.length || made.some((each, k) => each.box !== there[k])) {
    byId(id).replaceChildren(...made.map((each) => each.box));
  }
  made.forEach(show);
}
function figureOf(name) {
  if (!figures.has(name)) figures.set(name, newFigure());
  return figures.get(name);
}
function newFigure() {
  const svg = drawn("svg", { viewBox: `0 0 ${W} ${H}`, tabindex: "0", role: "img" });
  const about = element("span", undefined, { class: "about" });
  const made = { box: element("figure"), svg, about, head: element("h3"), keys: element("span"),
    said: element("output"), at: null, chart: null };
  const caption = element("figcaption");
  caption.append(made.keys, about, made.said);
  made.box.append(made.head, svg, caption);
  svg.addEventListener("pointermove", (event) => point(made, event));
  svg.addEventListener("pointerleave", () => choose(made, null));
  svg.addEventListener("blur", () => choose(made, null));
  svg.addEventListener("keydown", (event) => step(made, event));
  return made;
}
function show(made) {
  const { chart, svg } = made, x = horizontal(chart), y = vertical(chart);
  Object.assign(made, { x, y });
  const unit = element("span", chart.unit ? `[${chart.unit}]` : "");
  made.head.replaceChildren(`${chart.title} `, unit);
  svg.replaceChildren();
  addAxes(svg, chart, x, y);
  chart.curves.forEach((curve, k) =>
    addCurve(svg, curve, k, x, y, chart.curves.length <= BANDS));
  svg.setAttribute("aria-label", `${chart.title}: ${lasts(chart)}`);
  made.keys.replaceChildren(...(chart.curves.length > 1 ? chart.curves.map(key) : []));
  made.about.textContent = chart.about;
  choose(made, made.at);
}
function key(curve, k) {
  const box = element("span", undefined, { class: "key" });
  const swatch = drawn("svg", { class: "swatch", viewBox: "0 0 34 10", "aria-hidden": "true" });
  const look = { class: `line c${k % 6}`, "stroke-dasharray": DASHES[k % 6] };
  swatch.append(drawn("path", { ...look, d: "M1,5H33" }));
  box.append(swatch, curve.label);
  return box;
}

// ---- reading values
const row = (curve, at) => curve.x.reduce(
  (best, x, k) => Math.abs(x - at) < Math.abs(curve.x[best] - at) ? k : best, 0);
function choose(made, at) {
  made.at = at;
  made.svg.querySelector(".cursor")?.remove();
  made.said.textContent = "";
  if (at === null) return;
  const { across, curves } = made.chart, x = curves[0].x[row(curves[0], at)];
  const d = `M${made.x.place(x)},${EDGE.top}V${H - EDGE.bottom}`;
  made.svg.append(drawn("path", { class: "cursor", d }));
  const values = curves.map((curve) => {
    const j = row(curve, x), range = curve.low === null ? "" : ends(curve.low[j], curve.high[j]);
    return `${curve.label} ${number(curve.value[j])}${range ? ` (${range})` : ""}`.trim();
  });
  made.said.textContent = `${across} ${whole(x)}: ${values.join("; ")}`;
}
function point(made, event) {
  const box = made.svg.getBoundingClientRect(), xs = made.chart.curves[0].x;
  const at = (event.clientX - box.left) / box.width * W;
  const away = xs.map((x) => Math.abs(made.x.place(x) - at));
  choose(made, xs[away.indexOf(smallest(away))]);
}
function step(made, event) {
  const xs = made.chart.curves[0].x, end = xs.length - 1;
  const now = made.at === null ? end + 1 : row(made.chart.curves[0], made.at);
  const to = { ArrowLeft: now - 1, ArrowRight: now + 1, Home: 0, End: end }[event.key];
  if (event.key === "Escape") choose(made, null);
  if (to === undefined) return;
  event.preventDefault();
  choose(made, xs[Math.min(end, Math.max(0, to))]);
}
