// ---- what is drawn over any view: outlines and places, and the centrelines with their calibres

const LAYERS = { field: "Outline of the field", calibres: "Calibre map", disc: "Optic disc", zones: "Zones B and C", fovea: "Fovea" };
const HALO = "#000000b0";
const CALIBRE_COLORS_FROM = 90;  // first colour of "magma" that stands out, as in `resegnet.results.render`
const layersOn = new Set();

// Which layers the open photograph has.
function hasLayer(name) {
  if (name === "field") return shown.shapes.field.length > 0;
  if (name === "zones") return Boolean(shown.shapes.disc?.zones.length);
  return name === "calibres" || Boolean(shown.shapes[name]);
}

function updateLayerButtons() {
  for (const button of all(".layers button")) {
    button.hidden = !hasLayer(button.dataset.layer);
    button.setAttribute("aria-pressed", layersOn.has(button.dataset.layer));
  }
}

function toggleLayer(name) {
  if (!layersOn.delete(name)) layersOn.add(name);
  updateLayerButtons();
  updateLegend();
  measureLater();
  schedule(drawMarks);
  schedule(drawBeside);
}

// What has to come from the server whenever the slider rests.
function needs(view) {
  const wanted = [];
  if (view === "kinds") wanted.push("kinds");
  if (layersOn.has("calibres")) wanted.push("calibres");
  return wanted;
}

function drawMarks() {
  if (shown) drawMarksOf(openPane());
}

function drawMarksOf(pane) {
  const { shown, place, board: { marks: canvas } } = pane;
  const context = canvas.getContext("2d"), screen = window.devicePixelRatio || 1;
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.save();
  context.beginPath();
  context.rect(place.x, place.y, shown.width * place.scale, shown.height * place.scale);
  context.clip();
  const at = (x, y) => [place.x + x * place.scale, place.y + y * place.scale];
  const { shapes } = shown;
  if (layersOn.has("calibres") && freshDetails(pane)?.calibres) drawCalibres(context, pane, screen);
  const stroke = (color, dash = []) => {
    for (const [style, width] of [[HALO, 4], [color, 1.8]]) {
      Object.assign(context, { strokeStyle: style, lineWidth: width * screen });
      context.setLineDash(style === HALO ? [] : dash.map((length) => length * screen));
      context.stroke();
    }
  };
  const outline = (lines) => {
    context.beginPath();
    for (const line of lines) for (let k = 0; k < line.length; k += 2) context[k ? "lineTo" : "moveTo"](...at(line[k], line[k + 1]));
  };
  if (layersOn.has("field")) { outline(shapes.field); stroke("#ffffff", [7, 5]); }
  const green = `rgb(${props.disc_color})`;
  if (layersOn.has("disc") && shapes.disc) { outline(shapes.disc.outline); stroke(green); }
  if (layersOn.has("zones") && shapes.disc) {
    const { x, y, zones } = shapes.disc;
    for (const [number, radii] of [...zones.entries()].reverse()) {  // both begin at one circle, which is that of zone B
      for (const radius of radii) {
        context.beginPath();
        context.arc(...at(x, y), radius * place.scale, 0, 2 * Math.PI);
        stroke(props.zones[number].color, number ? [8, 6] : []);
      }
    }
  }
  if (layersOn.has("fovea") && shapes.fovea) {
    const [x, y] = at(...shapes.fovea), arm = 9 * screen;
    context.beginPath();
    context.moveTo(x - arm, y); context.lineTo(x + arm, y); context.moveTo(x, y - arm); context.lineTo(x, y + arm);
    stroke(green);
  }
  context.restore();
}

// A dot for each point of the centrelines, in one colour after the other, which is much faster than point by point.
function drawCalibres(context, { place, measured: { calibres } }, screen) {
  const { points } = calibres, { widest } = freshDetails()?.calibres ?? calibres;  // both panes have the colours of the legend
  const colors = props.magma.slice(CALIBRE_COLORS_FROM), size = Math.max(2 * screen, Math.min(place.scale, 4 * screen));
  const groups = new Map();
  for (let k = 0; k < points.length; k += 3) {
    const calibre = points[k + 2];
    const color = Number.isNaN(calibre) ? -1 : Math.round(Math.min(1, calibre / widest) * (colors.length - 1));
    if (!groups.has(color)) groups.set(color, []);
    groups.get(color).push(k);
  }
  for (const [color, places] of [...groups].sort(([one], [other]) => one - other)) {  // the widest on top
    context.fillStyle = color < 0 ? "rgb(150 150 150)" : `rgb(${colors[color]})`;
    for (const k of places) context.fillRect(place.x + points[k] * place.scale - size / 2, place.y + points[k + 1] * place.scale - size / 2, size, size);
  }
}

// ---- legends

function legendEntry(color, word, { small = "", title = "", count = null }) {
  const entry = Object.assign(tag("span", word), { title });
  if (small) entry.append(tag("small", small));
  if (count) {
    const number = tag("b", "");
    number.dataset.count = count;
    entry.append(number);
  }
  entry.prepend(Object.assign(document.createElement("i"), { style: `background: ${color}` }));
  return entry;
}

function ramp(colors, from, to) {
  const bar = Object.assign(document.createElement("i"), { className: "ramp" });
  bar.style.background = `linear-gradient(to right, ${colors.filter((_, k) => k % 15 === 0).map((c) => `rgb(${c})`).join(",")})`;
  return [tag("span", from), bar, tag("span", to)];
}

function updateLegend() {
  const entries = [];
  if (view === "errors") {
    for (const [kind, value] of Object.entries(props.colors)) {
      const [word, title] = { hit: ["agreed", "true positive"], miss: ["missed", "false negative"] }[kind] || ["extra", "false positive"];
      entries.push(legendEntry(`rgb(${value})`, word, { small: `(${kind})`, title, count: kind }));
    }
  } else if (view === "kinds") {
    const colors = props.kind_colors[safeKinds ? "safe" : "usual"];
    for (const [kind, word] of Object.entries({ artery: "arteries", vein: "veins", both: "both" })) {
      entries.push(legendEntry(`rgb(${colors[kind]})`, word, { count: kind, title: kind === "both" ? "as at crossings" : "" }));
    }
  } else if (view === "probability") {
    const scale = ramp(props.magma, "0", "1");
    scale[1].append(Object.assign(document.createElement("span"), { className: "tick" }));
    entries.push(...scale);
  } else if (view === "reference") entries.push(legendEntry("#fff", "manual segmentation", { count: "reference" }));
  const calibres = layersOn.has("calibres") ? ramp(props.magma.slice(CALIBRE_COLORS_FROM), "calibre 0", "\u2026") : [];
  if (calibres.length) calibres[2].className = "widest";
  const zones = shown && layersOn.has("zones") && hasLayer("zones") ? props.zones : [];
  const zoneEntries = zones.map(({ title, reach, color }) => legendEntry(color, title, { small: reach }));
  for (const [selector, content] of [[".legend", entries], [".calibre-legend", calibres], [".zone-legend", zoneEntries]]) {
    find(selector).replaceChildren(...content);
    find(selector).hidden = content.length === 0;
  }
  if (shown) updateCounts();
}

// Numbers of pixels in the legend, and where the threshold stands.
function updateCounts() {
  const counts = {};
  if (view === "errors") {
    const { hits, misses, alarms } = confusion(stop);
    Object.assign(counts, { hit: hits, miss: misses, "false alarm": alarms });
  } else if (view === "reference") counts.reference = reference.atOrAbove[0];
  else if (view === "kinds") Object.assign(counts, freshDetails()?.kindCounts ?? { artery: null, vein: null, both: null });
  for (const [key, count] of Object.entries(counts)) {
    const box = find(`.legend [data-count="${key}"]`);
    if (box) box.textContent = count === null ? "\u2026" : `${count.toLocaleString("en")} px`;
  }
  find(".legend .tick")?.style.setProperty("--at", shown.stops[stop]);
  const calibres = freshDetails()?.calibres, widest = find(".calibre-legend .widest");
  if (widest) widest.textContent = calibres ? lengthText(calibres.widest, 1) : "\u2026";
}

// `measured` of a pane, if it belongs to the pane's threshold.
function freshDetails({ shown, measured, stop } = openPane()) {
  return shown && measured?.threshold === shown.stops[stop] ? measured : null;
}

// Unpack what came with the measures.
async function loadDetails(value) {
  if (value.kinds) {
    value.kindPixels = await unpack(value.kinds);
    const counts = [0, 0, 0, 0];
    for (const kind of value.kindPixels) counts[kind]++;
    value.kindCounts = { artery: counts[1], vein: counts[2], both: counts[3] };
  }
  if (value.calibres) {
    const points = new Float32Array((await inflate(value.calibres)).buffer);
    const widths = points.filter((number, k) => k % 3 === 2 && !Number.isNaN(number)).sort();
    value.calibres = { points, widest: widths[Math.floor(0.98 * (widths.length - 1))] || 1 };
  }
}
