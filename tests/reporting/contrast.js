// Every text and every mark of the page as it is shown now, with its contrast to what lies behind it (WCAG 2.2); returns
// those below the bounds: 4.5 for text, 3 for large text, lines, points and the edges of what can be operated.
(() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const known = new Map();
  const parse = (colour) => {
    if (!known.has(colour)) {
      canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = "#000"; canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
      const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
      known.set(colour, [r, g, b, a / 255]);
    }
    return known.get(colour);
  };
  const over = ([r, g, b, a], [R, G, B]) => [r * a + R * (1 - a), g * a + G * (1 - a), b * a + B * (1 - a), 1];
  const light = ([r, g, b]) => { const [x, y, z] = [r, g, b].map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4)); return 0.2126 * x + 0.7152 * y + 0.0722 * z; };
  const ratio = (a, b) => { const [low, high] = [light(a), light(b)].sort((x, y) => x - y); return (high + 0.05) / (low + 0.05); };
  const path = (e) => { const found = []; for (; e; e = e.parentElement) found.push(e); return found.reverse(); };
  const behind = (element) => path(element).reduce((ground, e) => over(parse(getComputedStyle(e).backgroundColor), ground), [255, 255, 255, 1]);
  const faded = (element) => path(element).reduce((whole, e) => whole * Number(getComputedStyle(e).opacity), 1);
  const shown = (e) => e.checkVisibility({ visibilityProperty: true }) && e.getClientRects().length > 0 && !e.closest(".sr, .skip, .heat");
  const worst = new Map();
  let looked = 0;
  const judge = (element, colour, bound, kind, ground) => {
    const [r, g, b, a] = parse(colour), all = ground || behind(element), found = ratio(over([r, g, b, a * faded(element)], all), all);
    looked += 1;
    if (found >= bound - 0.005) return;
    const key = `${kind} ${element.localName}.${element.getAttribute("class") || ""} in ${element.parentElement.localName}.${element.parentElement.getAttribute("class") || ""}`;
    if (!worst.has(key) || worst.get(key) > found) worst.set(key, Math.round(100 * found) / 100);
  };
  for (const e of document.querySelectorAll("body *")) {
    if (!shown(e)) continue;
    const style = getComputedStyle(e);
    const words = [...e.childNodes].some((node) => node.nodeType === 3 && node.data.trim() && node.data.trim() !== "·");
    if (words || e.localName === "option") {
      const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
      judge(e, e.ownerSVGElement ? style.fill : style.color, large ? 3 : 4.5, "text");
    }
    for (const name of ["::before", "::after"]) {
      const own = getComputedStyle(e, name), said = own.content;
      if (said === "none" || said === "normal" || said === '""') continue;
      const [r, g, b, a] = parse(own.color);
      judge(e, `rgba(${r},${g},${b},${a * Number(own.opacity)})`, 4.5, `text ${name}`);
    }
    if (e.placeholder) judge(e, getComputedStyle(e, "::placeholder").color, 4.5, "placeholder");
    if (e.ownerSVGElement && !e.closest(".brand") && ["line", "path", "circle", "rect"].includes(e.localName)) {
      // Grids, bands behind a line and tracks below a bar say nothing that is not said elsewhere.
      if (e.matches(".grid, .band, .track, .span, #map-here, .dim, .cell")) continue;
      const stroked = style.stroke !== "none", [r, g, b, a] = parse(stroked ? style.stroke : style.fill);
      judge(e, `rgba(${r},${g},${b},${a * Number(stroked ? style.strokeOpacity : style.fillOpacity)})`, 3, "mark");
    }
    if (["SELECT", "INPUT"].includes(e.tagName) && e.type !== "checkbox") judge(e, style.borderTopColor, 3, "edge", behind(e.parentElement));
  }
  return { looked, worst: [...worst].sort((a, b) => a[1] - b[1]) };
})()
