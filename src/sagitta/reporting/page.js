"use strict";
(() => {
  const root = document.documentElement;
  const THEMES = { auto: ["◐", "Auto", "as the system"], light: ["☀", "Light", "light"], dark: ["☾", "Dark", "dark"] };
  const remembered = () => { try { return localStorage.getItem("sagitta-theme") || "auto"; } catch { return "auto"; } };
  let theme = remembered() in THEMES ? remembered() : "auto";
  const paint = () => { if (theme === "auto") delete root.dataset.theme; else root.dataset.theme = theme; };
  paint();

  document.addEventListener("DOMContentLoaded", () => {
    const one = (query, within = document) => within.querySelector(query);
    const all = (query, within = document) => [...within.querySelectorAll(query)];
    const make = (tag, look, words) => { const e = document.createElement(tag); if (look) e.className = look; if (words !== undefined) e.textContent = words; return e; };
    // Names keep their direction to themselves: as elements, and in an attribute between two marks.
    const named = (words) => { const e = make("bdi"); words.split(/(?<=[_/-])/).forEach((part, place) => { if (place) e.append(make("wbr")); e.append(part); }); return e; };
    const apart = (words) => `\u2068${words}\u2069`;
    const read = (id) => { const e = document.getElementById(id); return e ? JSON.parse(e.textContent) : null; };

    // Colours.
    const toggle = one("#theme");
    const name = () => { const [sign, word, long] = THEMES[theme]; toggle.replaceChildren(`${sign} `, make("span", "", word)); toggle.setAttribute("aria-label", `Colours: ${long}`); };
    toggle.addEventListener("click", () => {
      const order = Object.keys(THEMES);
      theme = order[(order.indexOf(theme) + 1) % order.length];
      try { localStorage.setItem("sagitta-theme", theme); } catch { /* a page may be forbidden to remember */ }
      paint(); name();
    });
    name();

    // Pictures: each stands in the file once.
    const album = read("pictures") || { pictures: [], tiny: [] };
    const tiny = new Set(album.tiny);
    const source = (number) => { const there = document.getElementById(`p${number}`); return there ? there.src : album.pictures[number]; };
    const picture = (number, words) => {
      if (number < 0 || number === null) { const e = make("span", "nopic", "no picture"); e.setAttribute("role", "img"); e.setAttribute("aria-label", words); return e; }
      const image = make("img", tiny.has(number) ? "pic px" : "pic");
      image.src = source(number); image.alt = words;
      return image;
    };
    all("img[data-p]").forEach((image) => { image.src = source(Number(image.dataset.p)); });

    // Which predictions are shown.
    const buttons = all(".switch button");
    buttons.forEach((button) => button.addEventListener("click", () => {
      buttons.forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
      all(".judged").forEach((part) => { part.hidden = part.dataset.part !== button.dataset.judged; });
    }));

    // Where the reader is.
    const links = all("nav a");
    if ("IntersectionObserver" in window) {
      const seen = new Map();
      const watch = new IntersectionObserver((entries) => {
        entries.forEach((entry) => seen.set(entry.target.id, entry.isIntersecting));
        const here = links.find((link) => seen.get(link.hash.slice(1)));
        links.forEach((link) => { link.classList.toggle("here", link === here); if (link === here) link.setAttribute("aria-current", "true"); else link.removeAttribute("aria-current"); });
      }, { rootMargin: "-110px 0px -55% 0px" });
      all("section").forEach((section) => watch.observe(section));
    }

    // A small window beside the pointer.
    const tip = one("#tip"), live = one("#live");
    const place = (x, y) => {
      tip.hidden = false;
      const wide = root.clientWidth, { offsetWidth: w, offsetHeight: h } = tip;
      const left = x + 16 + w > window.scrollX + wide ? x - w - 16 : x + 16;
      tip.style.left = `${Math.max(window.scrollX + 6, left)}px`;
      tip.style.top = `${Math.max(window.scrollY + 6, y - h / 2)}px`;
    };
    const hide = () => { tip.hidden = true; };
    document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
    all("[data-tip]").forEach((element) => {
      element.addEventListener("pointerenter", (event) => { tip.textContent = element.dataset.tip; place(event.pageX, event.pageY); });
      element.addEventListener("pointerleave", hide);
    });

    // Values of a plot, by pointer and arrow keys.
    all("[data-hover]").forEach((drawing) => {
      const about = JSON.parse(drawing.dataset.hover), svg = one("svg", drawing);
      const [left, top, right, bottom] = about.box;
      const stops = [...new Set(about.series.flatMap((series) => series.points.map((point) => point[0])))].sort((a, b) => a - b);
      if (!stops.length) return;
      const cursor = document.createElementNS("http://www.w3.org/2000/svg", "line");
      cursor.setAttribute("class", "cursor"); cursor.setAttribute("y1", top); cursor.setAttribute("y2", bottom); cursor.style.display = "none";
      svg.append(cursor);
      let at = -1;
      const show = (stop, aloud) => {
        at = stops.indexOf(stop);
        cursor.style.display = ""; cursor.setAttribute("x1", stop); cursor.setAttribute("x2", stop);
        const lines = about.series.map((series) => {
          const near = series.points.reduce((best, point) => (Math.abs(point[0] - stop) < Math.abs(best[0] - stop) ? point : best), series.points[0]);
          return near && Math.abs(near[0] - stop) < 6 ? { series, near } : null;
        }).filter(Boolean);
        tip.replaceChildren(make("div", "faint", `${about.label} ${lines.length ? lines[0].near[2] : ""}`));
        lines.forEach(({ series, near }) => { const row = make("div"); row.append(make("i", `l${series.colour}`), named(series.name), `: ${near[3]}`); tip.append(row); });
        const box = svg.getBoundingClientRect(), scale = box.width / svg.viewBox.baseVal.width;
        place(box.left + window.scrollX + stop * scale, box.top + window.scrollY + ((top + bottom) / 2) * scale);
        if (aloud) live.textContent = tip.textContent;
      };
      const leave = () => { cursor.style.display = "none"; hide(); };
      drawing.addEventListener("pointermove", (event) => {
        const box = svg.getBoundingClientRect(), x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
        if (x < left - 8 || x > right + 8) { leave(); return; }
        show(stops.reduce((best, stop) => (Math.abs(stop - x) < Math.abs(best - x) ? stop : best)), false);
      });
      drawing.addEventListener("pointerleave", leave);
      drawing.addEventListener("blur", leave);
      drawing.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (!step) return;
        event.preventDefault();
        show(stops[Math.min(stops.length - 1, Math.max(0, at < 0 ? (step > 0 ? 0 : stops.length - 1) : at + step))], true);
      });
    });

    // Tables: sort by a column, filter by words.
    const value = (row, column) => { const cell = row.cells[column]; return cell.dataset.v !== undefined ? Number(cell.dataset.v) : cell.textContent.trim(); };
    all("table.sortable").forEach((table) => {
      const heads = all("thead th", table);
      heads.forEach((head, column) => {
        const words = head.textContent.trim();
        if (!words) return;
        const button = make("button", "", words);
        button.type = "button";
        head.replaceChildren(button);
        button.addEventListener("click", () => {
          const numbers = head.classList.contains("num");
          const before = head.getAttribute("aria-sort");
          const rising = before ? before === "descending" : !numbers;
          heads.forEach((other) => other.removeAttribute("aria-sort"));
          head.setAttribute("aria-sort", rising ? "ascending" : "descending");
          const body = table.tBodies[0], sign = rising ? 1 : -1;
          const rows = [...body.rows].map((row) => [value(row, column), row]);
          rows.sort(([a], [b]) => sign * (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true })));
          body.append(...rows.map(([, row]) => row));
        });
      });
    });
    all("input.filter").forEach((input) => {
      const tools = input.closest(".tools"), table = one("table", tools.nextElementSibling), count = one(".count", tools);
      input.addEventListener("input", () => {
        const wanted = input.value.trim().toLocaleLowerCase();
        let shown = 0;
        [...table.tBodies[0].rows].forEach((row) => {
          row.hidden = Boolean(wanted) && !row.textContent.toLocaleLowerCase().includes(wanted);
          shown += row.hidden ? 0 : 1;
        });
        count.textContent = wanted ? `${shown} of ${table.tBodies[0].rows.length}` : "";
      });
    });

    // Confusion matrix: order, arrow keys, images of a cell.
    all("table.confusion").forEach((table) => {
      const orders = JSON.parse(table.dataset.orders);
      const head = table.tHead.rows[0], columns = [...head.cells].slice(1);
      const rows = [...table.tBodies[0].rows], cells = rows.map((row) => [...row.cells].slice(1));
      const given = rows.map((_, place) => place);
      const first = () => { all("button", table).forEach((b) => { b.tabIndex = -1; }); const b = one("button", table); if (b) b.tabIndex = 0; };
      one("select.order", table.closest("figure")).addEventListener("change", (event) => {
        const order = orders[event.target.value] || given;
        head.append(...order.map((place) => columns[place]));
        table.tBodies[0].append(...order.map((place) => rows[place]));
        order.forEach((row) => rows[row].append(...order.map((place) => cells[row][place])));
        first();
      });
      first();
      table.addEventListener("keydown", (event) => {
        const move = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
        const cell = event.target.closest("td");
        if (!move || !cell) return;
        event.preventDefault();
        // The next number in this line; where there is none, the nearest beyond it.
        const row = cell.parentElement.sectionRowIndex, column = cell.cellIndex;
        let found = null, near = [Infinity, Infinity, Infinity];
        all("td > button", table).forEach((button) => {
          const own = button.parentElement, down = own.parentElement.sectionRowIndex - row, right = own.cellIndex - column;
          const far = down * move[0] + right * move[1], aside = Math.abs(down * move[1]) + Math.abs(right * move[0]);
          const way = [Math.sign(aside), far, aside], first = way.findIndex((each, place) => each !== near[place]);
          if (far > 0 && first >= 0 && way[first] < near[first]) { found = button; near = way; }
        });
        if (!found) return;
        all("button", table).forEach((b) => { b.tabIndex = -1; });
        found.tabIndex = 0; found.focus();
      });
    });
    const judged = {};
    const known = (key) => (judged[key] ||= read(`judged-${key}`));
    const gallery = one("#gallery");
    const title = (data, cell) => {
      const [a, b] = cell.split("-");
      if (a === "m") return [named(data.names[b]), ": missed"];
      if (a === "f") return [named(data.names[b]), ": falsely given"];
      return a === b ? [named(data.names[a]), ": right"] : [named(data.names[a]), ", taken for ", named(data.names[b])];
    };
    document.addEventListener("click", (event) => {
      const button = event.target.closest("[data-cell]");
      if (!button) return;
      const key = button.dataset.key || button.closest("table").dataset.key, data = known(key), cell = button.dataset.cell;
      const rows = (data.cells[cell] || []).map((place) => data.rows[place]);
      one("#gallery-title").replaceChildren(...title(data, cell));
      const total = Number(button.dataset.count);
      one("#gallery-note").textContent = rows.length ? `${rows.length}${total > rows.length ? ` of ${total}` : ""} images, the surest first` : "No image of this cell is in the page.";
      one("#gallery-tiles").replaceChildren(...rows.map(([path, truth, words, chance, own, number]) => {
        const tile = make("figure", "tile"), image = make("div", "image"), text = make("figcaption");
        image.append(picture(number, `${apart(path)}: ${apart(truth)}, predicted ${apart(words)}`));
        const right = make("b", "truth"), said = make("span", truth === words ? "ok" : "given", `→ ${Math.round(100 * chance)}% `);
        right.append(named(truth)); said.append(named(words)); text.append(right, said);
        if (truth !== words) text.append(make("span", "chance", `truth ${own < 0.01 ? "below 1" : Math.round(100 * own)}%`));
        const where = make("span", "path"); where.append(make("bdi", "", path)); where.title = path;
        text.append(where); tile.append(image, text);
        return tile;
      }));
      gallery.showModal();
    });
    one(".close", gallery).addEventListener("click", () => gallery.close());
    gallery.addEventListener("click", (event) => { if (event.target === gallery) gallery.close(); });

    // Heat maps.
    all(".heat-toggle").forEach((box) => box.addEventListener("change", () => {
      all(".heat-toggle").forEach((other) => { other.checked = box.checked; });
      one("#mistakes").classList.toggle("heated", box.checked);
    }));

    // The map.
    const map = read("map-data");
    if (map) {
      const svg = one("#map-svg"), drawing = one("#map-drawing"), here = one("#map-here"), dots = all(".pt", svg);
      const colour = one("#map-colour"), only = one("#map-class"), legend = one("#map-legend");
      const key = (look, words, sign) => { const item = make("li"); item.append(make("i", `${look} ${sign ? "cross" : "ball"}`, sign || ""), named(words)); return item; };
      const recolour = () => {
        svg.setAttribute("class", `by-${colour.value}`);
        const items = { right: () => [key("l0", "right"), key("l1", "wrong", "✕"), key("lx", "not judged")], split: () => map.splits.map((word, place) => key(`l${place}`, word)), class: () => [...map.colours.map((place, index) => key(`l${index}`, map.classes[place])), ...(map.classes.length > map.colours.length ? [key("lx", `${map.classes.length - map.colours.length} other classes`)] : [])] };
        legend.replaceChildren(...items[colour.value]());
      };
      const restrict = () => { map.points.forEach((point, place) => dots[place].classList.toggle("dim", only.value !== "" && point[2] !== Number(only.value))); };
      colour.addEventListener("change", recolour);
      only.addEventListener("change", restrict);
      recolour();
      const visible = (point) => only.value === "" || point[2] === Number(only.value);
      let at = -1;
      const show = (place, aloud) => {
        at = place;
        const [x, y, label, split, state, taken, path, number] = map.points[place];
        here.setAttribute("cx", x); here.setAttribute("cy", y);
        tip.replaceChildren();
        if (number >= 0) tip.append(picture(number, ""));
        const own = make("b"), where = make("div", "faint", `${map.splits[split]}: `);
        own.append(named(map.classes[label])); where.append(named(path)); tip.append(own);
        if (state) { const said = make("div", state === "r" ? "ok" : "given", state === "r" ? "right" : "taken for "); if (state !== "r") said.append(named(taken)); tip.append(said); }
        tip.append(where);
        const box = svg.getBoundingClientRect(), scale = box.width / svg.viewBox.baseVal.width;
        place_(box, scale, x, y);
        if (aloud) live.textContent = tip.textContent;
      };
      const place_ = (box, scale, x, y) => place(box.left + window.scrollX + x * scale, box.top + window.scrollY + y * scale);
      const leave = () => { here.setAttribute("cx", -50); hide(); };
      drawing.addEventListener("pointermove", (event) => {
        const box = svg.getBoundingClientRect(), scale = box.width / svg.viewBox.baseVal.width;
        const x = (event.clientX - box.left) / scale, y = (event.clientY - box.top) / scale;
        let best = -1, near = (18 / scale) ** 2;
        map.points.forEach((point, place_of) => { const far = (point[0] - x) ** 2 + (point[1] - y) ** 2; if (far < near && visible(point)) { near = far; best = place_of; } });
        if (best < 0) leave(); else show(best, false);
      });
      drawing.addEventListener("pointerleave", leave);
      drawing.addEventListener("blur", leave);
      drawing.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
        if (!step) return;
        event.preventDefault();
        const order = map.points.map((point, place_of) => place_of).filter((place_of) => visible(map.points[place_of])).sort((a, b) => map.points[a][0] - map.points[b][0]);
        if (!order.length) return;
        const now = order.indexOf(at);
        show(order[Math.min(order.length - 1, Math.max(0, now < 0 ? 0 : now + step))], true);
      });
    }

    // Commands to copy; everything opens for the printer.
    all(".copy").forEach((button) => button.addEventListener("click", async () => {
      const words = one("code", button.parentElement).textContent;
      try { await navigator.clipboard.writeText(words); button.textContent = "copied"; } catch { const range = document.createRange(); range.selectNodeContents(one("code", button.parentElement)); getSelection().removeAllRanges(); getSelection().addRange(range); button.textContent = "marked"; }
    }));
    window.addEventListener("beforeprint", () => all("details").forEach((part) => { part.open = true; }));
  });
})();
