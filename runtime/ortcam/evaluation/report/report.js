// Sorts the table and the gallery, holds curves, and shows where tables go on. Both are also sorted by the address: #column=adcc&direction=ascending sorts the
// table, #sort=adcc/scorecam&order=ascending the gallery.
(() => {
  "use strict";
  const byId = (id) => document.getElementById(id);
  const values = JSON.parse(byId("values").textContent);
  const address = () => new URLSearchParams(location.hash.slice(1));

  function remember(changes) {
    const found = address();
    for (const key of [...found.keys()]) if (!["column", "direction", "sort", "order"].includes(key)) found.delete(key);
    for (const [key, value] of Object.entries(changes)) found.set(key, value);
    history.replaceState(null, "", "#" + found);
  }

  // What is missing comes last, whatever the direction.
  function compare(a, b, ascending) {
    if (a === undefined || b === undefined) return (a === undefined) - (b === undefined);
    const found = typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b;
    return ascending ? found : -found;
  }

  const heads = [...document.querySelectorAll("#table [data-column]")];

  function sortTable(column, direction) {
    const head = heads.find((item) => item.dataset.column === column);
    if (!head) return;
    for (const item of heads) item.setAttribute("aria-sort", item === head ? direction : "none");
    const value = (row) => {
      const text = row.cells[heads.indexOf(head)].dataset.value;
      return text === undefined || column === "method" ? text : Number(text);
    };
    for (const body of byId("table").tBodies) {
      body.append(...[...body.rows].sort((a, b) => compare(value(a), value(b), direction === "ascending")));
    }
  }

  for (const head of heads) {
    const button = head.querySelector("button");
    button.disabled = false;
    button.addEventListener("click", () => {
      const now = head.getAttribute("aria-sort");
      const other = now === "ascending" ? "descending" : "ascending";
      const direction = now === "none" ? head.dataset.first : other;
      sortTable(head.dataset.column, direction);
      remember({ column: head.dataset.column, direction });
    });
  }

  const cards = byId("cards");
  const [sort, order] = [byId("sort"), byId("order")];
  const inOrder = cards ? [...cards.children] : [];

  function sortCards() {
    const key = sort.value;
    const option = sort.selectedOptions[0].textContent;
    const value = (card) => {
      const place = Number(card.dataset.card);
      if (key === "extremity") return inOrder.length - place;
      return key === "name" ? values[place].name : values[place].numbers[key];
    };
    const ascending = order.value === "ascending";
    cards.append(...[...inOrder].sort((a, b) => compare(value(a), value(b), ascending)));
    for (const card of inOrder) {
      const found = value(card);
      const number = found === undefined ? "–" : Number(found).toFixed(2).replace("-", "−");
      card.querySelector(".sorted-by").textContent = key.includes("/") ? `${option}: ${number}` : "";
    }
    byId("status").textContent = `Sorted by ${option}, ${order.value}`;
  }

  if (cards) {
    document.querySelector(".sorting").hidden = false;
    sort.addEventListener("change", () => {
      order.value = sort.value === "name" ? "ascending" : "descending";
      sortCards();
      remember({ sort: sort.value, order: order.value });
    });
    order.addEventListener("change", () => {
      sortCards();
      remember({ sort: sort.value, order: order.value });
    });
  }

  // A curve whose name is clicked stays brought out; the style sheet does the rest.
  for (const button of document.querySelectorAll(".keys button")) {
    button.addEventListener("click", () => {
      button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
    });
  }

  // Tables that go on beyond an edge get a shadow there, and a hint.
  for (const outer of document.querySelectorAll(".scrolled")) {
    const inner = outer.querySelector(".scroll");
    const look = () => {
      const rest = inner.scrollWidth - inner.clientWidth;
      const sides = [inner.scrollLeft > 1 && "left", inner.scrollLeft < rest - 1 && "right"];
      outer.dataset.more = sides.filter(Boolean).join(" ");
      outer.querySelector(".hint").hidden = rest <= 1;
      outer.style.setProperty("--high", `${inner.offsetHeight - 2}px`);
    };
    inner.addEventListener("scroll", look, { passive: true });
    const watch = new ResizeObserver(look);
    watch.observe(inner);
    watch.observe(inner.firstElementChild);
  }

  function follow() {
    const asked = address();
    const direction = (name) => (asked.get(name) === "ascending" ? "ascending" : "descending");
    if (asked.has("column")) sortTable(asked.get("column"), direction("direction"));
    if (cards && [...sort.options].some((option) => option.value === asked.get("sort"))) {
      sort.value = asked.get("sort");
      order.value = direction("order");
      sortCards();
    }
  }
  addEventListener("hashchange", follow);
  follow();
  document.documentElement.dataset.ready = "true";
})();
