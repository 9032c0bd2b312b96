// What test_page.py does with a matrix of which a part is drawn: goes everywhere by arrow keys, opens every number.
(() => {
  const one = (query) => document.querySelector(query), all = (query) => [...document.querySelectorAll(query)];
  const rows = new Set();
  one('.confusion button[tabindex="0"]').focus();
  for (const [key, times] of [["ArrowDown", 60], ["ArrowUp", 60], ["ArrowRight", 60]]) {
    for (let time = 0; time < times; time += 1) {
      document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
      rows.add(document.activeElement.closest("tr").rowIndex);
    }
  }
  const stops = all('.confusion [tabindex="0"]').length;
  const cells = all(".confusion button").map((button) => {
    button.click();
    const words = [one("#gallery-title").textContent, one("#gallery-note").textContent];
    const seen = [button.className, button.getAttribute("aria-label"), ...words, all("#gallery-tiles figure").length];
    one("#gallery .close").click();
    return seen;
  });
  return { rows: rows.size, stops, cells };
})()
