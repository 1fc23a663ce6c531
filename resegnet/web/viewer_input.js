// ---- input

const commands = {
  pick: () => find(".pick").click(),
  take: () => find(".take").click(),
  shortcuts: () => shortcuts.showModal(),
  beside: () => (beside ? closeBeside() : openBeside(otherPhotographs()[0])),
  "same-threshold": sameThreshold,
  "pick-reference": () => find(".pick-reference").click(),
  batch: openBatch,
  stay: () => { find(".batch-offer").hidden = true; },
  truth: () => { newRequest("Comparing"); trigger("truth"); },
  "drop-reference": () => { newRequest(); compareWith(null); },
  cancel: () => { newRequest(); stopBusy(); trigger("cancel"); },
  close,
  reset: () => { typing = false; setStop(shown.fitted); settle(); },
  in: () => zoom(1.5), out: () => zoom(1 / 1.5), fit: () => { place.fitted = true; resize(); },
  one: () => zoom(1 / place.scale),
  // The whole page goes full screen, because gradio's messages are outside the viewer.
  full: () => (document.fullscreenElement ? document.exitFullscreen() : document.documentElement.requestFullscreen()),
};

// Ask for the scores that need the server, once the slider rests.
function settle() {
  announce(`${share()} of the field of view is vessel.`);
  if (reference && reference.cldice.threshold !== shown.stops[stop]) trigger("settle");
}

root.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  const { do: command, zoom: zoomed, view: viewed, layer, kinds, again, pair, save, example, color: chosen } = button.dataset;
  if (command || zoomed) commands[command || zoomed]();
  else if (viewed) setView(viewed);
  else if (layer) toggleLayer(layer);
  else if (kinds) setKindColors(kinds === "safe");
  else if (save && !("busy" in root.dataset) && !("saving" in button.dataset)) {
    button.dataset.saving = "";
    setTimeout(() => delete button.dataset.saving, 60_000);  // gradio reports nothing if the server is gone
    root.viewer.what = save;
    trigger("save");
  } else if (chosen) { color = chosen; swatches(); }
  else if (pair) besideFromStrip(visit.strip[Number(pair)]);
  else if (example || again) {
    if (again) showAgain(Number(again));
    else {
      newRequest("Finding the vessels");
      trigger("example", { index: Number(example) });
    }
    if (stage.getBoundingClientRect().top < 0) root.scrollIntoView({ block: "start" });  // the stage is above the examples
  }
});

for (const [selector, event] of [[".pick", "photograph"], [".take", "photograph"], [".pick-reference", "reference"]]) {
  find(selector).addEventListener("change", (change) => {
    send([...change.target.files], event);
    change.target.value = "";  // so that the same file can be chosen again
  });
}

slider.addEventListener("input", () => { typing = false; setStop(Number(slider.value)); });
slider.addEventListener("change", settle);
exact.addEventListener("input", () => {
  typing = true;
  const wanted = exact.valueAsNumber;
  const good = wanted >= 0 && wanted <= 1;
  exact.setAttribute("aria-invalid", !good);
  if (!good) return;
  setStop(nearestStop(wanted));
});
exact.addEventListener("change", () => {
  typing = false;
  exact.value = written(shown.stops[stop]);
  exact.setAttribute("aria-invalid", false);
  settle();
});
opacity.addEventListener("input", repaint);

function repaint() {
  schedule(drawPaint);
  schedule(drawBeside);
}

um.addEventListener("input", () => {
  um.dataset.of = "visitor";
  if (shown) { updateMeasures(); updateCounts(); }
});

function setKindColors(safe) {
  safeKinds = safe;
  all("[data-kinds]").forEach((button) => button.setAttribute("aria-pressed", (button.dataset.kinds === "safe") === safe));
  updateLegend();
  repaint();
}

function swatches() {
  all(".swatches button").forEach((button) => button.setAttribute("aria-pressed", button.dataset.color === color));
  find(".swatches input").value = color;
  find(".swatches input").dataset.chosen = !SWATCHES.some(([value]) => value === color);
  repaint();
}

// ---- zoom and pan, in either pane

const paneOf = (target) => (target === sheet ? openPane() : beside);

// Where a pointer is, in pixels of the open photograph's canvas. In the other pane, that is the same part of the picture.
function pointOf(event) {
  const pane = paneOf(event.currentTarget), { width, height } = pane.board.photo;
  const box = event.currentTarget.getBoundingClientRect(), screen = width / box.width;
  const ratio = fitScale() / scaleToFit(pane);
  const across = ratio * shown.width / pane.shown.width, down = ratio * shown.height / pane.shown.height;
  return [photoCanvas.width / 2 + ((event.clientX - box.left) * screen - width / 2) * across,
    photoCanvas.height / 2 + ((event.clientY - box.top) * screen - height / 2) * down];
}

function moveBy(x, y) {
  place.x += x;
  place.y += y;
  resize();
}

let hintTimer = 0;
function onWheel(event) {
  // The wheel alone scrolls the page past the picture. Trackpads send a pinch as a wheel with the control key.
  if (!(event.ctrlKey || event.metaKey || document.fullscreenElement)) {
    find(".hint").dataset.on = "";
    clearTimeout(hintTimer);
    hintTimer = setTimeout(() => delete find(".hint").dataset.on, 1500);
    return;
  }
  event.preventDefault();
  zoom(Math.exp(-event.deltaY / 200), ...pointOf(event));
}

const fingers = new Map();  // where each finger was last
function onDown(event) {
  if (event.pointerType === "mouse" && event.button !== 0) return;
  fingers.set(event.pointerId, pointOf(event));
  if (!place.fitted || fingers.size > 1) event.currentTarget.setPointerCapture(event.pointerId);
}

function onMove(event) {
  tellProbability(event, paneOf(event.currentTarget));
  if (event.buttons === 0) fingers.delete(event.pointerId);  // the button was released outside the picture
  const before = fingers.get(event.pointerId);
  if (!before) return;
  const now = pointOf(event), other = [...fingers].find(([id]) => id !== event.pointerId)?.[1];
  fingers.set(event.pointerId, now);
  if (other) {
    const apart = (point) => Math.hypot(point[0] - other[0], point[1] - other[1]);
    zoom(apart(now) / Math.max(1, apart(before)), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
  } else if (!place.fitted) moveBy(now[0] - before[0], now[1] - before[1]);
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const step = 60 * (window.devicePixelRatio || 1);
  const moves = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
  const keys = { "+": "in", "=": "in", "-": "out", 0: "fit", 1: "one" };
  if (keys[event.key]) commands[keys[event.key]]();
  else if (moves[event.key] && !place.fitted) moveBy(...moves[event.key]);
  else return;
  event.preventDefault();
}

function listenTo(target) {
  const listen = (name, act, options) => target.addEventListener(name, (event) => { if (paneOf(target)?.shown) act(event); }, options);
  listen("wheel", onWheel, { passive: false });
  listen("dblclick", (event) => zoom(2, ...pointOf(event)));
  listen("pointerdown", onDown);
  listen("pointermove", onMove);
  listen("keydown", onKey);
  for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) target.addEventListener(name, (event) => fingers.delete(event.pointerId));
  target.addEventListener("pointerleave", () => { target.parentElement.querySelector(".under").hidden = true; });
}
listenTo(sheet);

divider.addEventListener("pointerdown", (event) => divider.setPointerCapture(event.pointerId));
divider.addEventListener("pointermove", (event) => {
  if (!divider.hasPointerCapture(event.pointerId)) return;
  const box = sheet.getBoundingClientRect();
  divide((event.clientX - box.left) / box.width);
});
divider.addEventListener("keydown", (event) => {
  const steps = { ArrowLeft: -2, ArrowDown: -2, ArrowRight: 2, ArrowUp: 2, Home: -100, End: 100 };
  if (!(event.key in steps)) return;
  event.preventDefault();
  divide((Number(divider.getAttribute("aria-valuenow")) + steps[event.key]) / 100);
});

// A file may be dropped anywhere on the page: otherwise the browser would leave the page and open it.
const overReference = (event) => shown && Boolean((event.target.closest ? event.target : event.target.parentElement)?.closest(".reference"));
const hasFiles = (event) => root.isConnected && [...(event.dataTransfer?.types || [])].includes("Files");
document.addEventListener("dragover", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  root.dataset.drag = overReference(event) ? "reference" : "photograph";
});
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) delete root.dataset.drag; });
document.addEventListener("drop", (event) => {
  if (!hasFiles(event)) return;
  const taken = event.defaultPrevented;  // by gradio's own drop zone
  event.preventDefault();
  delete root.dataset.drag;
  if (batchTab()?.getClientRects().length) {
    if (!taken) giveToBatch([...event.dataTransfer.files]);
  } else if (root.getClientRects().length) send([...event.dataTransfer.files], overReference(event) ? "reference" : "photograph");
});
document.addEventListener("paste", (event) => {
  const files = [...(event.clipboardData?.files || [])];
  if (!root.isConnected || !files.length) return;
  if (root.getClientRects().length) send(files, "photograph");
  else if (batchTab()?.getClientRects().length && !event.defaultPrevented) giveToBatch(files);
});
