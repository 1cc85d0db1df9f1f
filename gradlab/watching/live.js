// Asks for the state once a second and shows it. Whatever comes from a run is set as text.
const EVERY = 1000, HIDDEN = 5000;  // milliseconds
const byId = (id) => document.getElementById(id);
let mark = "", state = null, skew = 0;

// ---- words
const number = (v) => {
  if (v === null || v === undefined) return "–";
  const size = Math.abs(v);
  if (size === 0) return "0";
  if (size >= 1e5 || size < 1e-3) {
    return Number(v.toPrecision(3)).toExponential().replaceAll("-", "−").replace("e+", "e");
  }
  return String(Number(v.toPrecision(4))).replace("-", "−");
};
const whole = (v) => Number.isInteger(v) ? v.toLocaleString("en-US") : number(v);
const lasting = (s) => {
  for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60]]) {
    if (s >= 2 * size) return `${Number((s / size).toPrecision(2))} ${unit}`;
  }
  return `${Math.round(s)} s`;
};
const ends = (low, high) =>
  low === null || high === null || low === high ? "" : `${number(low)} … ${number(high)}`;

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
  const shown = Object.entries({ run: state.run, ...facts });
  byId("facts").replaceChildren(...shown.map(([name, value]) => {
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
  const done = `${progress.across} ${whole(progress.done)}${total}`;
  byId("count").textContent = [done, rate, left, lost].filter(Boolean).join(", ");
}
function say(words) {
  if (byId("phase").textContent !== words) byId("phase").textContent = words;
}
function showAge() {
  const telling = state && state.written !== null
    && ["running", "silent", "stopped"].includes(state.phase);
  const age = telling ? Math.max(0, Date.now() / 1000 + skew - state.written) : 0;
  byId("age").textContent = telling ? `last row ${lasting(age)} ago` : "";
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
    const box = element("div"), unit = reading.unit ? ` [${reading.unit}]` : "";
    const below = [reading.ends, reading.old ? `at ${whole(reading.at)}` : ""];
    box.append(element("dt", reading.name + unit),
      element("dd", reading.shown, { class: "value" }),
      element("dd", below.filter(Boolean).join(", "), { class: "ends" }));
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

// ---- asking
async function answered() {
  try {
    const headers = mark ? { "If-None-Match": mark } : {};
    return await fetch("/state.json", { headers, signal: AbortSignal.timeout(10 * EVERY) });
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
