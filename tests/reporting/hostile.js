// What test_page.py asks of a page whose names mean harm; returns what it saw, by name.
(async () => {
  const all = (query, within = document) => [...within.querySelectorAll(query)];
  const seen = {};
  const marks = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2065\u206a-\u206f\ufeff]/;
  const even = (words) => words.split("\u2068").length === words.split("\u2069").length && !/[\u2066\u2067]/.test(words);
  const bad = () => {
    const found = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_ELEMENT | NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
      const words = node.nodeType === 3 ? [node.data] : [...node.attributes].map((each) => each.value);
      found.push(...words.filter((each) => marks.test(each) || !even(each)));
    }
    return found.concat(marks.test(document.title) ? [document.title] : []);
  };
  const turned = () => all("bdi").filter((each) => getComputedStyle(each).unicodeBidi !== "isolate").length;
  const names = [...new Set(all("*").flatMap((each) => [...each.attributes].map((own) => own.name)))];
  seen.attributes = names.sort();
  seen.handlers = names.filter((name) => name.startsWith("on"));
  seen.elements = [...new Set(all("*").map((each) => each.localName))].sort();
  seen.scripts = all("script:not([type])").length;
  seen.styles = all("style").length;
  seen.bad = bad();
  const titles = [];
  for (const button of all("[data-cell]").slice(0, 60)) {
    button.click();
    titles.push(document.querySelector("#gallery-title").textContent);
    seen.bad.push(...bad());
    document.querySelector("#gallery .close").click();
  }
  seen.titles = titles;
  for (const plot of all("[data-hover]")) {
    plot.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true }));
    seen.bad.push(...bad());
  }
  document.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape", bubbles: true }));
  seen.turned = turned();
  seen.wide = document.documentElement.scrollWidth - innerWidth;
  const inside = (element) => { for (let e = element; e; e = e.parentElement) if (["auto", "hidden", "scroll", "clip"].includes(getComputedStyle(e).overflowX) && e !== document.documentElement) return true; return false; };
  seen.out = all("body *").filter((each) => each.getBoundingClientRect().right > innerWidth + 1 && !inside(each)).slice(0, 5).map((each) => each.outerHTML.slice(0, 200));
  // Words of a drawing that lie outside of it are cut.
  seen.cut = all("svg[role=img] text").filter((each) => { const box = each.getBBox(), m = each.getCTM(), own = each.ownerSVGElement, k = own.getBoundingClientRect().width / own.viewBox.baseVal.width; const left = (m.a * box.x + m.c * (box.y + box.height) + m.e) / k; return left < -1; }).map((each) => each.textContent).slice(0, 5);
  // A table may be wider than a phone, but no name makes it go on and on.
  seen.endless = all("table.sortable").filter((each) => each.checkVisibility() && each.offsetWidth > Math.max(1100, 2 * each.parentElement.clientWidth)).length;
  seen.links = all("a[href]").map((each) => each.getAttribute("href"));
  return seen;
})()
