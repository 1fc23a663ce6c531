// ---- start

find(".swatches").append(...SWATCHES.map(([value, name]) => {
  const button = Object.assign(document.createElement("button"), { type: "button", title: name, style: `--swatch: ${value}` });
  button.dataset.color = value;
  button.setAttribute("aria-label", name);
  return button;
}), Object.assign(document.createElement("input"), { type: "color", value: color, title: "another colour" }));
find(".swatches input").setAttribute("aria-label", "another colour");
find(".swatches input").addEventListener("input", (event) => { color = event.target.value; swatches(); });
opacity.value = props.opacity;
swatches();

find(".layers p").append(...Object.entries(LAYERS).map(([layer, title]) => {
  const button = Object.assign(tag("button", title), { type: "button", className: "pill" });
  button.dataset.layer = layer;
  button.setAttribute("aria-pressed", false);
  return button;
}));

for (const { key, title, meaning, icc, reliable } of props.measures) {
  const tile = document.createElement("div"), value = tag("strong", "–");
  value.dataset.measure = key;
  value.toggleAttribute("data-live", key === "vessel_density");
  tile.append(tag("h3", title), value, Object.assign(tag("p", ""), { className: "why", hidden: true }), tag("p", meaning));
  if (icc) tile.append(Object.assign(tag("p", `ICC ${icc[0].toFixed(2)} to ${icc[1].toFixed(2)}`), { className: "icc" }));
  find(reliable ? ".measures > .tiles" : ".measures details .tiles").append(tile);
}

// The pair is one picture, before on the left and after on the right.
for (const picture of all(".first img")) picture.src = props.first_look;
const firstEdge = find(".first input");
firstEdge.addEventListener("input", () => find(".first").style.setProperty("--edge", `${firstEdge.value}%`));

find(".offered").append(...props.examples.map(({ name, kind, src }, index) => {
  const button = Object.assign(document.createElement("button"), { type: "button", title: name });
  button.dataset.example = index;
  button.append(Object.assign(document.createElement("img"), { src, alt: `Example: ${name}`, width: 72, height: 72 }), tag("span", kind));
  return button;
}));
find(".offered").hidden = props.examples.length === 0;

new ResizeObserver(() => resize()).observe(sheet);
const queue = document.getElementById("status");
if (queue) new MutationObserver(showQueue).observe(queue, { subtree: true, childList: true, characterData: true });
document.addEventListener("fullscreenchange", () => root.toggleAttribute("data-full", document.fullscreenElement !== null));
find("[data-zoom=full]").hidden = !document.fullscreenEnabled;
root.viewer = {
  file: null,  // the last upload
  restMs: 400,  // from the last move of the slider until the measures are asked for
  showMeasures,
  carryThreshold,
  model: chosenModel,
  showBeside,
  showMeasuresBeside,
  besideSettings,
  what: null,  // kind of the file to save
  settings: () => ({ request, model: chosenModel(), photo: shown?.photo ?? null, reference: reference?.file ?? null, threshold: shown ? shown.stops[stop] : null, color,
    opacity: Number(opacity.value), um_per_px: umPerPx(), needs: shown ? needs(view) : [], visit: visit.token, reopen: visit.open, safe_kinds: safeKinds, what: root.viewer.what }),
  refine: (value) => { if (reference) { reference.cldice = value?.threshold === undefined ? { threshold: shown.stops[stop], value: null } : value; updateNumbers(); } },
  saved: () => all("[data-saving]").forEach((button) => delete button.dataset.saving),
  stopBusy,
};
watch("value", () => receive(props.value));
restoreVisit();
if (!window.DecompressionStream) showMessage(".viewer > .error", ["This browser is too old for the page, which needs one of 2023 or later: update it."]);
