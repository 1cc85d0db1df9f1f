
// Sorts a table by the clicked column, numbers by their full value.
document.addEventListener("click", (event) => {
  const head = event.target.closest("table.sortable th");
  if (!head) return;
  const table = head.closest("table"), heads = [...head.parentElement.children];
  const down = head.getAttribute("aria-sort") === "ascending", column = heads.indexOf(head);
  heads.forEach((other) => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const key = (row) => {
    const cell = row.cells[column];
    return cell.dataset.v === undefined ? cell.textContent : Number(cell.dataset.v);
  };
  const order = (a, b) => typeof a === "string" ? a.localeCompare(b)
    : (Number.isNaN(a) - Number.isNaN(b)) || a - b;
  const rows = [...table.tBodies[0].rows].sort((a, b) => order(key(a), key(b)) * (down ? -1 : 1));
  table.tBodies[0].append(...rows);
});

// A run in progress (`gradlab watch --web`): its line once a second, and the report when it has been
// rendered again. What was unfolded or focused stays so.
const EVERY = 1000;  // milliseconds
const live = () => document.getElementById("live");
const name = (box) => box.firstElementChild.textContent.replace(/[\d.,−–]+/g, "");
const controls = () => [...document.querySelectorAll("summary, button, abbr")];
let mark = null;
function say(text) {
  if (live().textContent !== text) live().textContent = text;
}
function take(next) {
  const open = new Map([...document.querySelectorAll("details")].map((d) => [name(d), d.open]));
  const at = controls().indexOf(document.activeElement);
  next.querySelectorAll("details").forEach((d) => { d.open = open.get(name(d)) ?? d.open; });
  document.title = next.title;
  document.querySelector("main").replaceWith(document.adoptNode(next.querySelector("main")));
  controls()[at]?.focus({ preventScroll: true });
}
async function follow() {
  try {
    const state = await (await fetch("state.json")).json();
    if (mark !== state.page) {
      const text = await (await fetch("/")).text();
      take(new DOMParser().parseFromString(text, "text/html"));
    }
    mark = state.page;
    say(state.line);
  } catch {
    say("No answer from gradlab watch: the view has ended. The run goes on.");
  }
  setTimeout(follow, EVERY);
}
if (live()) follow();
