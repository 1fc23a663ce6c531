// ---- the Batch tab: files that are dropped anywhere on it, its sorted table, and its rows in the viewer

const batchTab = () => document.getElementById("batch");
let sorted = null;  // column of the table and direction: { column, up }

function openTab(name) {
  [...document.querySelectorAll("[role=tab]")].find((tab) => tab.textContent.trim() === name).click();
}

// Add files to those of the Batch tab, as if they had been chosen there.
async function giveToBatch(files) {
  const transfer = new DataTransfer();
  for (const file of files) transfer.items.add(file);
  for (let wait = 0; wait < 100; wait++) {  // gradio renders the tab when it is first opened
    const input = document.querySelector("#batch input[type=file]");
    if (input) {
      input.files = transfer.files;
      input.dispatchEvent(new Event("change", { bubbles: true }));
      return;
    }
    await new Promise((done) => setTimeout(done, 50));
  }
}

function sortTable() {
  const table = document.querySelector("#batch .lines table");
  if (!table) return;
  for (const head of table.querySelectorAll("th")) {
    head.ariaSort = sorted?.column === head.cellIndex ? (sorted.up ? "ascending" : "descending") : "none";
  }
  if (!sorted) return;
  const value = (row) => row.cells[sorted.column].dataset.value ?? row.cells[sorted.column].textContent;
  const compare = (one, other) => {
    const [a, b] = [value(one), value(other)];
    if ((a === "") !== (b === "")) return a === "" ? 1 : -1;  // what failed comes last
    const order = Number.isNaN(Number(a)) || Number.isNaN(Number(b)) ? a.localeCompare(b, undefined, { numeric: true }) : a - b;
    return sorted.up ? order : -order;
  };
  const body = table.tBodies[0], rows = [...body.rows], ordered = rows.toSorted(compare);
  if (rows.every((row, k) => row === ordered[k])) return;
  const focused = body.contains(document.activeElement) ? document.activeElement : null;
  body.append(...ordered);
  focused?.focus({ preventScroll: true });  // a button that is moved loses the focus
}

// gradio draws the table anew for each photograph that is done, in the order of the files.
const tableObserver = new MutationObserver(() => {
  const lines = document.querySelector("#batch .lines");
  tableObserver.disconnect();
  sortTable();
  if (lines) tableObserver.observe(lines, { childList: true, subtree: true });
});

document.addEventListener("click", (event) => {
  if (!root.isConnected) return;
  const button = event.target.closest?.("#batch .lines button");
  if (!button) return;
  if (button.dataset.row !== undefined) {
    openTab("Segment");
    newRequest("Finding the vessels");
    trigger("row", { row: Number(button.dataset.row) });
    return;
  }
  const column = button.closest("th").cellIndex;
  sorted = { column, up: sorted?.column === column ? !sorted.up : column < 2 };  // the largest number first
  tableObserver.disconnect();
  sortTable();
  tableObserver.observe(document.querySelector("#batch .lines"), { childList: true, subtree: true });
});
