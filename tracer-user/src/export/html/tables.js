// Tables that can be put into another order.

function sortable(table) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const name = head.textContent;
    const order = () => {
      const down = head.getAttribute("aria-sort") !== "descending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
      const compare = (one, other) => Number(value(one)) - Number(value(other)) || value(one).localeCompare(value(other));
      const rows = [...body.rows].sort((one, other) => (down ? compare(other, one) : compare(one, other)));
      body.append(...rows);
    };
    head.replaceChildren(element("button", { type: "button", className: "sort", onclick: order }, name));
  });
}
