// Two fields above the table of claims: words that a row must hold, and its outcome.
document.addEventListener("DOMContentLoaded", () => {
  const place = document.querySelector("#claims-of-the-papers");
  if (!place) return;
  const rows = [...place.querySelectorAll("tbody tr")];
  const bar = document.createElement("p");
  bar.innerHTML = '<input type="search" placeholder="words" aria-label="words in a claim"> ' +
    '<select aria-label="outcome"><option value="">every outcome</option></select> <output></output>';
  const [words, outcome, count] = bar.children;
  for (const name of new Set(rows.map((row) => row.cells[2].textContent))) {
    outcome.append(new Option(name, name));
  }
  const filter = () => {
    const wanted = words.value.toLowerCase().split(/\s+/);
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      const fits = !outcome.value || row.cells[2].textContent === outcome.value;
      row.hidden = !fits || !wanted.every((word) => text.includes(word));
    }
    count.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length}`;
  };
  bar.addEventListener("input", filter);
  place.querySelector("table").before(bar);
  filter();
});
