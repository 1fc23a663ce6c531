// ---- help with the threshold: the curve of density, the probability under the pointer, the threshold that is kept

let kept = null;  // threshold for the next photographs, null if they start at the fitted one
let carried = null;  // threshold that the Batch tab took over last

// Density against threshold. Above the level of a threshold near 0, where all of the field is vessel, the curve is cut off.
function drawDensity() {
  const field = shown.atOrAbove[0] || 1, shares = shown.stops.map((_, k) => shown.atOrAbove[k] / field);
  const top = Math.max(0.02, Math.min(1, 2.5 * shares[shown.fitted]));
  const points = shares.map((share, k) => `${k / (shares.length - 1)},${1 - Math.min(1, share / top)}`);
  // Only numbers go into this markup, so nothing needs escaping.
  find(".density").innerHTML = `<polygon points="0,1 ${points.join(" ")} 1,1"/><polyline points="${points.join(" ")}"/>`;
  find(".density-dot").top = top;
}

function updateDensity() {
  const dot = find(".density-dot"), share = shown.atOrAbove[stop] / (shown.atOrAbove[0] || 1);
  dot.style.setProperty("--at", stop / (shown.stops.length - 1));
  dot.style.setProperty("--high", Math.min(1, share / dot.top));
}

function nearestStop(threshold, stops = shown.stops) {
  const distance = stops.map((value) => Math.abs(value - threshold));
  return distance.indexOf(Math.min(...distance));
}

find(".keep").addEventListener("click", () => {
  kept = kept === null && shown ? shown.stops[stop] : null;
  find(".keep").setAttribute("aria-pressed", kept !== null);
});

// The threshold that the Batch tab takes over: what was chosen here, once. Null leaves that tab as it is.
function carryThreshold() {
  const chosen = shown ? shown.stops[stop] : null;
  const changed = chosen !== carried && (carried !== null || stop !== shown?.fitted);
  if (!shown || !changed) return null;
  carried = chosen;
  return chosen;
}

// Tell the probability under the pointer; `event` is of the sheet of a pane.
function tellProbability(event, { shown, levels, place, board }) {
  const box = event.currentTarget.parentElement.querySelector(".under");
  if (!shown || event.pointerType !== "mouse") { box.hidden = true; return; }
  const frame = event.currentTarget.getBoundingClientRect(), screen = board.photo.width / frame.width;
  const column = Math.floor(((event.clientX - frame.left) * screen - place.x) / place.scale);
  const row = Math.floor(((event.clientY - frame.top) * screen - place.y) / place.scale);
  box.hidden = column < 0 || row < 0 || column >= shown.width || row >= shown.height;
  if (box.hidden) return;
  const level = levels[row * shown.width + column];
  box.textContent = level ? `probability ${shown.stops[level - 1].toFixed(3)}` : "outside the field of view";
}

// ---- shortcuts

const VIEW_KEYS = { o: "overlay", b: "compare", m: "mask", p: "probability", a: "kinds", e: "errors", r: "reference" };
const shortcuts = find(".shortcuts");

function peek(on) {
  root.toggleAttribute("data-peek", on && shown !== null);
}

document.addEventListener("keydown", (event) => {
  if (!root.isConnected || !root.getClientRects().length || shortcuts.open || event.ctrlKey || event.metaKey || event.altKey) return;
  const target = event.target, key = event.key?.toLowerCase();
  if (target !== document.body && !root.contains(target)) return;
  if (target.matches("input:not([type=range], [type=checkbox]), select, textarea")) return;
  if (!find(".shortcuts input").checked && key !== "?") return;
  if (key === "?") shortcuts.showModal();
  else if (!shown || "busy" in root.dataset) return;
  else if (key === "h") peek(true);
  else if (key === "s" && otherPhotographs().length) commands.beside();
  else if (key === "[" || key === "]") { typing = false; setStop(stop + (key === "]" ? 1 : -1)); settle(); }
  else if (VIEW_KEYS[key]) {
    const button = find(`.views [data-view=${VIEW_KEYS[key]}]`);
    if (button.hidden) return;
    setView(VIEW_KEYS[key]);
  } else return;
  event.preventDefault();
});
document.addEventListener("keyup", (event) => { if (event.key?.toLowerCase() === "h") peek(false); });
window.addEventListener("blur", () => peek(false));
const peekButton = find(".peek");
for (const name of ["pointerdown", "pointerup", "pointerleave", "pointercancel"]) peekButton.addEventListener(name, () => peek(name === "pointerdown"));
for (const name of ["keydown", "keyup"]) peekButton.addEventListener(name, (event) => { if (event.key === " ") { event.preventDefault(); peek(name === "keydown"); } });

// ---- uploads, with the share that is sent

let sending = null;  // XMLHttpRequest of the last upload

// gradio's own `upload` tells no progress and cannot be stopped.
function sendFile(file, progress) {
  return new Promise((done, failed) => {
    const request = new XMLHttpRequest(), form = new FormData();
    sending = request;
    form.append("files", file);
    request.open("POST", `${window.gradio_config.root}${window.gradio_config.api_prefix}/upload`);
    request.upload.addEventListener("progress", (event) => { if (event.lengthComputable) progress(event.loaded / event.total); });
    request.addEventListener("load", () => {
      if (request.status === 200) done(JSON.parse(request.responseText)[0]);
      else failed(new Error(request.responseText.slice(0, 200) || `the server answered with status ${request.status}`));
    });
    request.addEventListener("abort", () => failed(new Error("it was cancelled")));
    request.addEventListener("error", () => failed(new Error("the server cannot be reached")));
    request.send(form);
  });
}
