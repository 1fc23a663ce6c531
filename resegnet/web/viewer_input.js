// ---- input

const commands = {
  pick: () => find(".pick").click(),
  take: () => find(".take").click(),
  shortcuts: () => shortcuts.showModal(),
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
  const { do: command, zoom: zoomed, view: viewed, layer, kinds, again, save, example, color: chosen } = button.dataset;
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
opacity.addEventListener("input", () => shown && schedule(drawPaint));

um.addEventListener("input", () => { if (shown) { updateMeasures(); updateCounts(); } });

function setKindColors(safe) {
  safeKinds = safe;
  all("[data-kinds]").forEach((button) => button.setAttribute("aria-pressed", (button.dataset.kinds === "safe") === safe));
  updateLegend();
  if (shown) schedule(drawPaint);
}

function swatches() {
  all(".swatches button").forEach((button) => button.setAttribute("aria-pressed", button.dataset.color === color));
  find(".swatches input").value = color;
  find(".swatches input").dataset.chosen = !SWATCHES.some(([value]) => value === color);
  if (shown) schedule(drawPaint);
}

let hintTimer = 0;
sheet.addEventListener("wheel", (event) => {
  // The wheel alone scrolls the page past the picture. Trackpads send a pinch as a wheel with the control key.
  if (!shown) return;
  if (!(event.ctrlKey || event.metaKey || document.fullscreenElement)) {
    find(".hint").dataset.on = "";
    clearTimeout(hintTimer);
    hintTimer = setTimeout(() => delete find(".hint").dataset.on, 1500);
    return;
  }
  event.preventDefault();
  const box = sheet.getBoundingClientRect(), screen = photoCanvas.width / box.width;
  zoom(Math.exp(-event.deltaY / 200), (event.clientX - box.left) * screen, (event.clientY - box.top) * screen);
}, { passive: false });

sheet.addEventListener("dblclick", (event) => {
  if (!shown) return;
  const box = sheet.getBoundingClientRect(), screen = photoCanvas.width / box.width;
  zoom(2, (event.clientX - box.left) * screen, (event.clientY - box.top) * screen);
});

const fingers = new Map();
sheet.addEventListener("pointerdown", (event) => {
  if (!shown || (event.pointerType === "mouse" && event.button !== 0)) return;
  fingers.set(event.pointerId, event);
  if (!place.fitted || fingers.size > 1) sheet.setPointerCapture(event.pointerId);
});
sheet.addEventListener("pointermove", (event) => {
  if (event.buttons === 0) fingers.delete(event.pointerId);  // the button was released outside the picture
  const before = fingers.get(event.pointerId);
  if (!before || !shown) return;
  const box = sheet.getBoundingClientRect(), screen = photoCanvas.width / box.width;
  const other = [...fingers.values()].find((finger) => finger.pointerId !== event.pointerId);
  fingers.set(event.pointerId, event);
  if (other) {
    const apart = (finger) => Math.hypot(finger.clientX - other.clientX, finger.clientY - other.clientY);
    zoom(apart(event) / Math.max(1, apart(before)), ((event.clientX + other.clientX) / 2 - box.left) * screen,
      ((event.clientY + other.clientY) / 2 - box.top) * screen);
  } else if (!place.fitted) {
    place.x += (event.clientX - before.clientX) * screen;
    place.y += (event.clientY - before.clientY) * screen;
    resize();
  }
});
for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) sheet.addEventListener(name, (event) => fingers.delete(event.pointerId));

sheet.addEventListener("keydown", (event) => {
  if (!shown || event.ctrlKey || event.metaKey || event.altKey) return;
  const step = 60 * (window.devicePixelRatio || 1);
  const moves = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
  const keys = { "+": "in", "=": "in", "-": "out", 0: "fit", 1: "one" };
  if (keys[event.key]) commands[keys[event.key]]();
  else if (moves[event.key] && !place.fitted) {
    place.x += moves[event.key][0];
    place.y += moves[event.key][1];
    resize();
  } else return;
  event.preventDefault();
});

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
