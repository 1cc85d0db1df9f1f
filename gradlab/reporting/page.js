
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
