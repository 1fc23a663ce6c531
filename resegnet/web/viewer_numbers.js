// ---- numbers, counted exactly from the levels of all pixels

function suffixSums(counts) {
  const sums = [...counts, 0];
  for (let k = counts.length - 1; k >= 0; k--) sums[k] += sums[k + 1];
  return sums;
}

function confusion(k) {
  const called = shown.atOrAbove[k], field = shown.atOrAbove[0];
  const hits = reference.atOrAbove[k], vessels = reference.atOrAbove[0];
  const alarms = called - hits, misses = vessels - hits;
  return { called, field, hits, vessels, alarms, misses, rejections: field - called - misses };
}

function rates(k) {
  const { called, field, hits, vessels, alarms, misses, rejections } = confusion(k);
  return {
    f1: 2 * hits / (called + vessels),
    sensitivity: hits / vessels,
    specificity: rejections / (field - vessels),
    precision: hits / called,
    mcc: (hits * rejections - alarms * misses) / Math.sqrt(called * vessels * (field - called) * (field - vessels)),
  };
}

// Share of the field that is vessel.
function share({ shown, stop } = openPane()) {
  const field = shown.atOrAbove[0];
  return field ? `${(100 * shown.atOrAbove[stop] / field).toFixed(1)}%` : "–";
}

// Which eye it is, or why that is unknown.
function eyeText({ eye, disc, fovea }) {
  if (eye) return eye;
  return `unknown (${!disc ? "no optic disc found" : !fovea ? "no fovea found" : "disc and fovea do not lie side by side"})`;
}

// ---- measures, which the server computes once the thumb rests

function measureLater() {
  clearTimeout(rest);
  const stale = measured?.threshold !== shown.stops[stop] || (!measured.reason && needs(view).some((key) => !measured[key]));
  find(".measures").setAttribute("aria-busy", stale);
  if (stale) rest = setTimeout(() => ("busy" in root.dataset ? measureLater() : trigger("measure")), root.viewer.restMs);
  measureBeside();
}

async function showMeasures(value) {
  const current = () => shown && !(value && (value.photo !== shown.photo || value.threshold !== shown.stops[stop]));
  if (!current()) return;  // of another picture
  try {
    if (value) await loadDetails(value);
  } catch {
    value = null;
  }
  if (!current()) return;
  const hadKinds = measured?.kindPixels;
  measured = value;
  if (hadKinds || value?.kindPixels) { combine(); schedule(drawPaint); }
  schedule(drawMarks);
  schedule(drawBeside);
  updateCounts();
  find(".measures").setAttribute("aria-busy", false);
  const reason = value ? value.reason : "The numbers could not be computed; move the slider to try again.";
  Object.assign(find(".measures .reason"), { textContent: reason ?? "", hidden: !reason });
  updateMeasures();
}

function updateMeasures() {
  for (const measure of props.measures) {
    const { key, needs_anatomy } = measure, box = find(`.tiles [data-measure=${key}]`);
    // What only some models tell has no tile until it comes.
    box.parentElement.hidden = measured?.measures ? !(key in measured.measures) : needs_anatomy;
    const why = measured?.reasons?.[key];
    Object.assign(box.nextElementSibling, { textContent: why ?? "", hidden: !why });
    box.textContent = measureText(measure, openPane(), umPerPx(), find(".measures").ariaBusy === "true");
  }
  updatePairNumbers();
}

// A measure of a pane with its unit; `waiting` tells that the server is still measuring.
function measureText({ key, unit, digits }, pane, scale, waiting) {
  const value = pane.measured?.measures?.[key];
  if (key === "vessel_density") return share(pane);
  if (value == null) return pane.measured || !waiting ? "–" : "…";
  if (unit === "px") return lengthText(value, digits, scale);
  return decimals(value, digits) + (unit ? ` ${unit}` : "");
}

const decimals = (number, count) => number.toLocaleString("en", { minimumFractionDigits: count, maximumFractionDigits: count });

// A length in micrometres or millimetres if the scale is known, else in pixels.
function lengthText(px, digits, scale = umPerPx()) {
  if (!scale) return `${decimals(px, digits)} px`;
  return px * scale < 10000 ? `${decimals(px * scale, 1)} µm` : `${decimals(px * scale / 1000, 1)} mm`;
}

const umPerPx = () => (um.value !== "" && um.valueAsNumber > 0 && um.validity.valid ? um.valueAsNumber : null);

const written = (threshold) => String(+threshold.toPrecision(4));
const three = (number) => (number == null || Number.isNaN(number) ? "–" : number.toFixed(3));

function tag(name, text) {
  return Object.assign(document.createElement(name), { textContent: text });
}

function updateNumbers() {
  const threshold = written(shown.stops[stop]);
  find(".share strong").textContent = share();
  slider.value = stop;
  slider.setAttribute("aria-valuetext", `${threshold}, ${share()} of the field is vessel`);
  if (!typing) exact.value = threshold;
  updateMeasures();
  updateCounts();
  updateDensity();
  if (kept !== null) kept = shown.stops[stop];
  find("[data-do=reset]").setAttribute("aria-disabled", stop === shown.fitted);
  sheet.setAttribute("aria-label", describe(openPane()));
  updateBesideTexts();
  if (reference) updateScores();
}

// What a pane shows, for screen readers.
function describe(pane) {
  const views = { overlay: "its vessels coloured", compare: "its vessels coloured on the right", mask: "only its vessels, white on black",
    probability: "the probability of vessels", reference: "only the manual segmentation, white on black",
    kinds: "its arteries and veins in two colours", errors: "hits, misses and false alarms against the manual segmentation" };
  const { name, stops } = pane.shown;
  return `${name}, ${views[pane.view]}; ${share(pane)} of the field of view is vessel at threshold ${written(stops[pane.stop])}`;
}

function updateScores() {
  const now = rates(stop), cldice = reference.cldice;
  const fresh = cldice.threshold === shown.stops[stop];
  const rows = [["F1 (Dice)", now.f1], ["Sensitivity", now.sensitivity], ["Specificity", now.specificity], ["Precision", now.precision],
    ["MCC", now.mcc], ["clDice", fresh ? cldice.value : undefined], ["AUROC", reference.auroc]];
  find(".reference tbody").replaceChildren(...rows.map(([name, value]) => {
    const row = document.createElement("tr");
    row.append(Object.assign(tag("th", name), { scope: "row" }), tag("td", value === undefined ? "…" : three(value)));
    return row;
  }));
  const at = (r) => `${200 * r.sensitivity},${200 - 200 * r.precision}`;
  // Only numbers go into this markup, so nothing needs escaping.
  const titles = `<text x="100" y="230" text-anchor="middle">Sensitivity</text><text transform="translate(-32 100) rotate(-90)" text-anchor="middle">Precision</text>`;
  const axes = [0, 0.5, 1].map((v) => `<text x="${200 * v}" y="216" text-anchor="middle">${v}</text><text x="-6" y="${204 - 200 * v}" text-anchor="end">${v}</text>`);
  const dot = Number.isNaN(now.precision) ? "" : `<circle cx="${200 * now.sensitivity}" cy="${200 - 200 * now.precision}" r="5"/>`;
  find(".curve").innerHTML = `<path class="frame" d="M0 0V200H200"/>${axes.join("")}${titles}<polyline points="${reference.curve.map(at).join(" ")}"/>${dot}`;
  find(".curve").setAttribute("aria-label", `Precision-recall curve; at the chosen threshold precision ${three(now.precision)}, sensitivity ${three(now.sensitivity)}`);
}
