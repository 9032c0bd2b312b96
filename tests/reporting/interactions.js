// What test_page.py does on a page of one run; returns what it saw, by name.
(async () => {
  const one = (query, within = document) => within.querySelector(query);
  const all = (query, within = document) => [...within.querySelectorAll(query)];
  const press = (element, key) => element.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  const choose = (select, value) => { select.value = value; select.dispatchEvent(new Event("change")); };
  const write = (input, value) => { input.value = value; input.dispatchEvent(new Event("input")); };
  const seen = {};

  one(".confusion button.miss").click();
  seen.gallery = {
    open: one("#gallery").open,
    title: one("#gallery-title").textContent,
    pictures: all("#gallery-tiles img").map((image) => image.src.slice(0, 11)),
  };
  one("#gallery .close").click();
  seen.closed = !one("#gallery").open;

  const matrix = one(".confusion"), first = one('button[tabindex="0"]', matrix);
  first.focus();
  press(first, "ArrowDown");
  press(document.activeElement, "ArrowRight");
  seen.moved = document.activeElement !== first && matrix.contains(document.activeElement);
  seen.stops = all('[tabindex="0"]', matrix).length;

  const order = one("select.order"), before = matrix.textContent;
  const heads = () => all("thead th", matrix).map((head) => head.title).join();
  const rows = () => all("tbody th", matrix).map((head) => head.title).join();
  seen.orders = ["errors", "alike", "size", ""].map((value) => { choose(order, value); return heads() === rows(); });
  seen.restored = matrix.textContent === before;

  const table = one("table.classes"), f1 = () => [...table.tBodies[0].rows].map((row) => Number(row.cells[4].dataset.v));
  const button = one("button", table.tHead.rows[0].cells[4]);
  seen.sorted = [0, 1].map(() => { button.click(); return [table.tHead.rows[0].cells[4].getAttribute("aria-sort"), f1()]; });
  const filter = one("#classes .filter");
  write(filter, "PLAIN");
  const hidden = [...table.tBodies[0].rows].map((row) => [row.hidden, row.textContent.includes("plain")]);
  seen.filtered = hidden.some(([gone]) => gone) && hidden.every(([gone, named]) => gone !== named);
  write(filter, "");

  const plot = one("#training .drawing[data-hover]");
  plot.focus();
  press(plot, "ArrowRight");
  press(plot, "ArrowRight");
  seen.read = [one("#tip").textContent, one("#live").textContent, one("#tip").hidden];
  const box = plot.getBoundingClientRect();
  plot.dispatchEvent(new PointerEvent("pointermove", { clientX: box.right - 30, clientY: box.top + 80, bubbles: true }));
  seen.hovered = one("#tip").textContent;
  plot.dispatchEvent(new PointerEvent("pointerleave"));
  seen.left = one("#tip").hidden;

  seen.themes = [0, 1, 2].map(() => {
    one("#theme").click();
    return [document.documentElement.dataset.theme || "auto", getComputedStyle(document.body).backgroundColor];
  });
  seen.addresses = [...new Set(all("img").filter((image) => !image.closest("#tip")).map((image) => image.src.slice(0, 11)))];
  seen.fits = document.documentElement.scrollWidth <= innerWidth;
  seen.scripts = all("script:not([type])").length;
  seen.classes = one("#classes").textContent;
  return seen;
})()
