// The picture with its threshold slider. gradio runs this file once, with `element`, `props`, `trigger`, `watch` and
// `upload` in scope. Every threshold is drawn from one array of levels (see `levels.py`), without the server.

const root = element.querySelector(".viewer");
const find = (selector) => root.querySelector(selector);
const all = (selector) => [...root.querySelectorAll(selector)];
const stage = find(".stage"), sheet = find(".sheet"), divider = find(".divider");
const photoCanvas = find(".photo"), paintCanvas = find(".paint");
const slider = find("#viewer-threshold"), exact = find(".exact"), opacity = find(".opacity"), um = find(".um");

const SWATCHES = [[props.color, "cyan"], ["#ffe000", "yellow"], ["#ff4fd8", "magenta"], ["#7cff4f", "green"], ["#ffffff", "white"]];
const MAX_SCALE = 32;  // screen pixels for one of the photograph

let shown = null;  // the open photograph as the server sent it, `ShownPhotograph` in messages.py
let photo = null;  // HTMLImageElement
let levels = null;  // Uint8Array (H * W)
let codes = null;  // the levels, plus 256 where the reference has a vessel
let near = null;  // pixels at or above the second stop, row by row: column + 2 ** 23 * code
let rowsNear = null;  // where each row begins in `near`
let reference = null;  // the manual segmentation, `ShownReference` in messages.py, with sums and curve
let image = null;  // ImageData of the paint canvas
let stop = 0;  // number of the chosen threshold in shown.stops
let view = "overlay";
let color = props.color;
let place = { scale: 1, x: 0, y: 0, fitted: true };  // screen pixels per photograph pixel, and the upper left corner
let offered = [];  // files for the Batch tab
let typing = false;  // the number in the threshold's box is not finished yet
let measured = null;  // `Measured` in numbers.py, of the open photograph
let rest = 0;  // timer: the thumb of the slider rests
let request = 0;  // number of the last request; an answer to an earlier one is ignored

// ---- requests and answers

const later = new Set();
function schedule(draw) {
  if (later.size === 0) requestAnimationFrame(() => { const todo = [...later]; later.clear(); todo.forEach((f) => f()); });
  later.add(draw);
}

let doing = "";  // what the viewer is busy with

// While busy, the page still shows the photograph before, of which nothing can be saved or compared.
function setIdle(idle) {
  for (const button of all(".files button, .reference button")) button.disabled = !idle;
}

function startBusy(text) {
  doing = text;
  root.dataset.busy = "";
  setIdle(false);
  showQueue();
}

// gradio writes the place in its queue into the element #status, as "queue: 2/3".
function showQueue() {
  const place = /queue: *(\d+)/.exec(document.getElementById("status")?.textContent);
  find(".doing").textContent = place ? `Waiting, ${place[1]} before you` : doing;
}

function stopBusy() {
  delete root.dataset.busy;
  setIdle(true);
}

function showMessage(selector, lines) {
  const box = find(selector);
  box.hidden = lines.length === 0;
  box.replaceChildren(...lines.map((line) => tag("span", line)));
}

function announce(text) {
  find(".live").textContent = text;
}

// Begin a new request; answers to earlier ones are ignored from now on.
function newRequest(text) {
  find(".batch-offer").hidden = true;
  showMessage(".viewer > .error", []);
  showMessage(".reference .error", []);
  if (text) startBusy(text);
  return ++request;
}

// Several photographs, or a ZIP of them, belong on the Batch tab. The visitor is asked before they go there.
function offerBatch(files) {
  const box = find(".batch-offer"), named = files.length > 1 ? `${files.length} files` : `'${files[0].name}'`;
  box.querySelector("span").textContent = `This tab opens one photograph at a time. Open ${named} in Batch?`;
  box.hidden = false;
  box.querySelector("button").focus();
  offered = files;
}

async function openBatch() {
  find(".batch-offer").hidden = true;
  [...document.querySelectorAll("[role=tab]")].find((tab) => tab.textContent.trim() === "Batch").click();
  const transfer = new DataTransfer();
  for (const file of offered) transfer.items.add(file);
  for (let wait = 0; wait < 100; wait++) {  // gradio renders the tab when it is first opened
    const input = document.querySelector("#batch input[type=file]");
    if (input) {
      input.files = transfer.files;
      input.dispatchEvent(new Event("change", { bubbles: true }));
      return;
    }
    await new Promise((done) => setTimeout(done, 50));
  }
}

async function send(files, event) {
  const file = files[0];
  if (event === "photograph" && (files.length > 1 || /\.zip$/i.test(file?.name))) return offerBatch(files);
  if (!file || (event === "reference" && (!shown || "busy" in root.dataset))) return;
  const mine = newRequest("Sending the file");
  try {
    const sent = await upload(file);
    if (mine !== request) return;
    root.viewer.file = { path: sent.path, orig_name: file.name, meta: { _type: "gradio.FileData" } };
    startBusy(event === "photograph" ? "Finding the vessels" : "Comparing");
    trigger(event);
  } catch (error) {
    if (mine !== request) return;
    stopBusy();
    showMessage(".viewer > .error", [`'${file.name}' could not be sent (${error.message || error}); try again.`]);
  }
}

async function unpack(file) {
  const answer = await fetch(file.url);
  if (!answer.ok) throw new Error(`the server answered with status ${answer.status}`);
  const bytes = new Uint8Array(await new Response(answer.body.pipeThrough(new DecompressionStream("deflate"))).arrayBuffer());
  for (let k = 1; k < bytes.length; k++) bytes[k] += bytes[k - 1];
  return bytes;
}

function load(url) {
  return new Promise((done, failed) => {
    const image = new Image();
    image.onload = () => image.decode().then(() => done(image), failed);
    image.onerror = () => failed(new Error("the picture cannot be loaded"));
    image.src = url;
  });
}

// Take an answer of the server: a photograph, a manual segmentation of it, or an error, which changes nothing else.
async function receive(answer) {
  if (!answer || answer.request !== request) return;
  if (answer.error || answer.reference?.error) {
    showMessage(answer.error ? ".viewer > .error" : ".reference .error", [answer.error || answer.reference.error]);
    stopBusy();
    return;
  }
  try {
    if (answer.reference) {
      const vessels = await unpack(answer.reference.pixels);
      if (answer.request !== request) return;
      compareWith(answer.reference, vessels);
    } else {
      const [picture, unpacked] = await Promise.all([load(answer.photograph.url), unpack(answer.levels)]);
      if (answer.request !== request) return;
      [shown, photo, levels] = [answer, picture, unpacked];
      open();
    }
  } catch (error) {
    if (answer.request !== request) return;
    showMessage(".viewer > .error", [`The result could not be loaded (${error.message}); open the file again.`]);
  }
  stopBusy();
}

// List the pixels at or above the second stop. Three of four lie below it; to skip those makes a slider step 4 times faster.
function listNear() {
  const { width, height } = shown;
  let count = 0;
  for (let k = 0; k < codes.length; k++) if (codes[k] > 1) count++;
  near = new Uint32Array(count);
  rowsNear = new Int32Array(height + 1);
  for (let row = 0, k = 0, at = 0; row < height; row++) {
    for (let column = 0; column < width; column++, k++) if (codes[k] > 1) near[at++] = column | (codes[k] << 23);
    rowsNear[row + 1] = at;
  }
}

function open() {
  const { width, height, stops } = shown;
  root.viewer.saved();  // no download of an earlier photograph keeps its button
  shown.atOrAbove = suffixSums(shown.counts);
  stop = shown.fitted;
  typing = false;
  exact.setAttribute("aria-invalid", false);
  slider.max = stops.length - 1;
  find(".fitted").textContent = `Recommended: ${written(stops[shown.fitted])}.`;
  find(".mark").style.setProperty("--at", shown.fitted / (stops.length - 1));
  find(".name").textContent = shown.name;
  const facts = { Photograph: `${width} × ${height} px`, "Field of view": `${shown.atOrAbove[0].toLocaleString("en")} px` };
  find(".numbers dl").replaceChildren(...Object.entries(facts).flatMap(([name, value]) => [tag("dt", name), tag("dd", value)]));
  showMessage(".viewer > .warnings", shown.warnings);
  place.fitted = true;
  const size = `${width} x ${height}`;
  if (um.dataset.size !== size) um.value = "";  // the scale of another camera
  um.dataset.size = size;
  measured = null;
  measureLater();
  divide(0.5);
  compareWith(null);
  root.dataset.state = "shown";
  resize();
  if (document.activeElement === document.body) sheet.focus({ preventScroll: true });
  announce(`Finished. ${share()} of the field of view is vessel.`);
}

function close() {
  newRequest();
  stopBusy();
  trigger("cancel");
  clearTimeout(rest);
  shown = photo = levels = codes = near = reference = measured = null;
  root.dataset.state = "empty";
  showMessage(".viewer > .warnings", []);
  find("[data-do=pick]").focus();
}

// Show a manual segmentation over the levels, or remove it (null).
function compareWith(sent, vessels) {
  reference = sent;
  codes = sent ? Uint16Array.from(levels, (level, k) => level + 256 * vessels[k]) : levels;
  listNear();
  find(".reference").dataset.reference = sent ? "shown" : "none";
  showMessage(".reference .doubt", []);
  for (const button of all("button[data-view=errors], button[data-save=errors]")) button.hidden = !sent;
  if (sent) {
    reference.atOrAbove = suffixSums(sent.counts);
    reference.curve = shown.stops.map((_, k) => rates(k)).filter((r) => !Number.isNaN(r.precision));
    find(".reference .of span").textContent = sent.name;
    showMessage(".reference .notes", sent.notes);
    showMessage(".reference .doubt", sent.doubt ? [sent.doubt] : []);
    setView("errors");
    settle();
  } else setView(view === "errors" ? "overlay" : view);
}

// ---- numbers, counted exactly from the levels of all pixels

function suffixSums(counts) {
  const sums = [...counts, 0];
  for (let k = counts.length - 1; k >= 0; k--) sums[k] += sums[k + 1];
  return sums;
}

function rates(k) {
  const called = shown.atOrAbove[k], field = shown.atOrAbove[0];
  const hits = reference.atOrAbove[k], vessels = reference.atOrAbove[0];
  const alarms = called - hits, misses = vessels - hits, rejections = field - called - misses;
  return {
    f1: 2 * hits / (called + vessels),
    sensitivity: hits / vessels,
    specificity: rejections / (field - vessels),
    precision: hits / called,
    mcc: (hits * rejections - alarms * misses) / Math.sqrt(called * vessels * (field - called) * (field - vessels)),
  };
}

function share() {
  const field = shown.atOrAbove[0];
  return field ? `${(100 * shown.atOrAbove[stop] / field).toFixed(1)}%` : "–";
}

// ---- measures, which the server computes once the thumb rests

function measureLater() {
  clearTimeout(rest);
  const stale = measured?.threshold !== shown.stops[stop];
  find(".measures").setAttribute("aria-busy", stale);
  if (stale) rest = setTimeout(() => ("busy" in root.dataset ? measureLater() : trigger("measure")), root.viewer.restMs);
}

function showMeasures(value) {
  if (!shown || (value && (value.photo !== shown.photo || value.threshold !== shown.stops[stop]))) return;  // of another picture
  measured = value;
  find(".measures").setAttribute("aria-busy", false);
  const reason = value ? value.reason : "The numbers could not be computed; move the slider to try again.";
  Object.assign(find(".measures .reason"), { textContent: reason ?? "", hidden: !reason });
  updateMeasures();
}

function updateMeasures() {
  const scale = umPerPx();
  for (const { key, unit, digits } of props.measures) {
    const value = measured?.measures?.[key], box = find(`.tiles [data-measure=${key}]`);
    const decimals = (number, count) => number.toLocaleString("en", { minimumFractionDigits: count, maximumFractionDigits: count });
    if (key === "vessel_density") box.textContent = share();
    else if (value == null) box.textContent = measured || find(".measures").ariaBusy !== "true" ? "–" : "…";
    else if (unit === "px" && scale) box.textContent = value * scale < 10000 ? `${decimals(value * scale, 1)} µm` : `${decimals(value * scale / 1000, 1)} mm`;
    else box.textContent = decimals(value, digits) + (unit ? ` ${unit}` : "");
  }
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
  find("[data-do=reset]").setAttribute("aria-disabled", stop === shown.fitted);
  const views = { overlay: "its vessels coloured", compare: "its vessels coloured on the right", mask: "only its vessels, white on black",
    probability: "the probability of vessels", errors: "hits, misses and false alarms against the manual segmentation" };
  sheet.setAttribute("aria-label", `${shown.name}, ${views[view]}; ${share()} of the field of view is vessel at threshold ${threshold}`);
  if (reference) updateScores();
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

// ---- drawing

function resize() {
  if (!shown) return;
  const { width, height } = shown;
  const box = sheet.getBoundingClientRect();
  const screen = window.devicePixelRatio || 1;
  const wide = Math.max(1, Math.round(box.width * screen)), high = Math.max(1, Math.round(box.height * screen));
  for (const canvas of [photoCanvas, paintCanvas]) {
    if (canvas.width !== wide || canvas.height !== high) Object.assign(canvas, { width: wide, height: high });
  }
  if (place.fitted) {
    place.scale = fitScale();
    place.x = (wide - width * place.scale) / 2;
    place.y = (high - height * place.scale) / 2;
  }
  keepInside();
  all("[data-zoom]").forEach((button) => {
    if (button.dataset.zoom === "in") button.disabled = place.scale >= MAX_SCALE;
    if (button.dataset.zoom === "out") button.disabled = place.scale <= leastScale();
  });
  sheet.dataset.zoomed = place.fitted ? "no" : "yes";
  find(".scale").textContent = `${Math.round(100 * place.scale)} %`;
  schedule(drawPhoto);
  schedule(drawPaint);
}

const fitScale = () => Math.min(photoCanvas.width / shown.width, photoCanvas.height / shown.height);
const leastScale = () => Math.min(1, fitScale());

function keepInside() {
  const clamp = (corner, size, room) => (size <= room ? (room - size) / 2 : Math.min(0, Math.max(room - size, corner)));
  // Whole pixels, so that at 1:1 and above each pixel of the photograph stays square and sharp.
  place.x = Math.round(clamp(place.x, shown.width * place.scale, photoCanvas.width));
  place.y = Math.round(clamp(place.y, shown.height * place.scale, photoCanvas.height));
}

function drawPhoto() {
  if (!shown) return;
  const context = photoCanvas.getContext("2d");
  context.clearRect(0, 0, photoCanvas.width, photoCanvas.height);
  const box = [place.x, place.y, shown.width * place.scale, shown.height * place.scale];
  if (view === "mask" || view === "probability") {
    context.fillStyle = "#000";
    context.fillRect(...box);
    return;
  }
  context.imageSmoothingEnabled = place.scale < 2;
  context.imageSmoothingQuality = "high";
  context.drawImage(photo, ...box);
}

// For each code, the weight that a pixel adds, and to which of the sums of its screen pixel (1 or 3 a view).
function weights() {
  const size = 512, part = new Int32Array(size), weight = new Float32Array(size);
  for (let code = 0; code < size; code++) {
    const level = code & 255, vessel = level > stop;
    if (view === "probability") {
      part[code] = 0;
      weight[code] = level ? shown.stops[level - 1] : 0;
    } else if (view === "errors") {
      const truth = code > 255;
      part[code] = truth ? (vessel ? 0 : 1) : 2;
      weight[code] = (truth || vessel) && level ? 1 : 0;
    } else weight[code] = vessel ? 1 : 0;
  }
  return { part, weight };
}

function rgb(hex) {
  return [1, 3, 5].map((k) => parseInt(hex.slice(k, k + 2), 16));
}

function drawPaint() {
  if (!shown) return;
  updateNumbers();
  const { width, height } = shown;
  const { scale, x, y } = place;
  const wide = paintCanvas.width, high = paintCanvas.height;
  const context = paintCanvas.getContext("2d");
  if (image?.width !== wide || image.height !== high) image = context.createImageData(wide, high);
  const out = new Uint32Array(image.data.buffer);  // 0xAABBGGRR: browsers run on little-endian machines only
  out.fill(0);
  const { part, weight } = weights();
  for (let code = 0; code < 512; code++) part[code] *= wide;
  const parts = view === "errors" ? 3 : 1;
  const sums = new Float32Array(parts * wide);
  const [r, g, b] = view === "mask" ? [255, 255, 255] : rgb(color);
  const plain = (b << 16) | (g << 8) | r;
  const alpha = 255 * (view === "mask" ? 1 : Number(opacity.value));
  const kinds = ["hit", "miss", "false alarm"].map((kind) => props.colors[kind]);
  const magma = props.magma.map(([red, green, blue]) => (0xff000000 | (blue << 16) | (green << 8) | red) >>> 0);

  // Reduced, each pixel of the photograph belongs to one of the screen; enlarged, each of the screen to one of the photograph.
  const shrunk = scale < 1;
  const columnOf = new Int32Array(shrunk ? width : wide);
  const columns = new Int32Array(wide);  // how many of the photograph's columns a screen column stands for
  for (let k = 0; k < columnOf.length; k++) {
    columnOf[k] = Math.floor(shrunk ? (k + 0.5) * scale + x : (k + 0.5 - x) / scale);
    if (shrunk && columnOf[k] >= 0 && columnOf[k] < wide) columns[columnOf[k]]++;
  }
  const left = Math.max(0, Math.floor(x)), right = Math.min(wide, Math.ceil(x + width * scale));
  const rowOf = (row) => Math.floor((row + 0.5) * scale + y);
  const whole = stop === 0;
  const add = (code, k) => { if (weight[code] !== 0 && k >= 0 && k < wide) sums[part[code] + k] += weight[code]; };
  let row = Math.max(0, Math.floor(-y / scale) - 1);
  for (let line = Math.max(0, Math.floor(y)); line < Math.min(high, Math.ceil(y + height * scale)); line++) {
    let rows = 1;
    sums.fill(0);
    if (shrunk) {
      while (row < height && rowOf(row) < line) row++;
      const start = row;
      for (; row < height && rowOf(row) === line; row++) {
        if (whole) {
          for (let column = 0, k = row * width; column < width; column++, k++) add(codes[k], columnOf[column]);
        } else for (let k = rowsNear[row]; k < rowsNear[row + 1]; k++) add(near[k] >>> 23, columnOf[near[k] & 0x7fffff]);
      }
      rows = row - start;
      if (!rows) continue;
    } else {
      const source = Math.floor((line + 0.5 - y) / scale);
      if (source < 0 || source >= height) continue;
      for (let k = left; k < right; k++) {
        const column = columnOf[k];
        if (column < 0 || column >= width) continue;
        const code = codes[source * width + column];
        sums[part[code] + k] = weight[code];
      }
    }
    for (let k = left, at = line * wide + left; k < right; k++, at++) {
      const share = 1 / (shrunk ? rows * columns[k] : 1);
      if (view === "probability") out[at] = magma[Math.min(255, Math.round(255 * sums[k] * share))];
      else if (view === "errors") {
        const counts = [sums[k], sums[wide + k], sums[2 * wide + k]], total = counts[0] + counts[1] + counts[2];
        if (!total) continue;
        const mixed = [0, 1, 2].map((channel) => Math.round(counts.reduce((sum, n, kind) => sum + n * kinds[kind][channel], 0) / total));
        out[at] = (Math.round(255 * total * share) << 24) | (mixed[2] << 16) | (mixed[1] << 8) | mixed[0];
      } else if (sums[k]) out[at] = (Math.round(alpha * sums[k] * share) << 24) | plain;
    }
  }
  context.putImageData(image, 0, 0);
}

function setView(name) {
  view = name;
  root.dataset.view = name;
  all(".views button").forEach((button) => button.setAttribute("aria-pressed", button.dataset.view === name));
  const legend = find(".legend");
  legend.hidden = name !== "errors" && name !== "probability";
  if (name === "errors") {
    legend.replaceChildren(...Object.entries(props.colors).map(([kind, value]) => {
      const [word, term] = { hit: ["agreed", "true positive"], miss: ["missed", "false negative"] }[kind] || ["extra", "false positive"];
      const entry = Object.assign(tag("span", word), { title: term });
      entry.append(tag("small", `(${kind})`));
      entry.prepend(Object.assign(document.createElement("i"), { style: `background: rgb(${value})` }));
      return entry;
    }));
  } else if (name === "probability") {
    const ramp = Object.assign(document.createElement("i"), { className: "ramp" });
    ramp.style.background = `linear-gradient(to right, ${props.magma.filter((_, k) => k % 15 === 0).map((c) => `rgb(${c})`).join(",")})`;
    legend.replaceChildren(tag("span", "0"), ramp, tag("span", "1"));
  }
  find(".look").disabled = !["overlay", "compare"].includes(name);
  if (shown) { schedule(drawPhoto); schedule(drawPaint); }
}

function setStop(k) {
  stop = Math.min(shown.stops.length - 1, Math.max(0, k));
  measureLater();
  schedule(drawPaint);
}

function divide(share) {
  const percent = Math.round(100 * Math.min(1, Math.max(0, share)));
  divider.setAttribute("aria-valuenow", percent);
  stage.style.setProperty("--divide", `${percent}%`);
}

// Zoom by a factor round a point of the canvas (its middle if none is given).
function zoom(factor, atX = photoCanvas.width / 2, atY = photoCanvas.height / 2) {
  if (!shown) return;
  const scale = Math.min(MAX_SCALE, Math.max(leastScale(), place.scale * factor));
  place.x = atX - (atX - place.x) * scale / place.scale;
  place.y = atY - (atY - place.y) * scale / place.scale;
  place.scale = scale;
  place.fitted = scale === fitScale();
  resize();
}

// ---- input

const commands = {
  pick: () => find(".pick").click(),
  take: () => find(".take").click(),
  "pick-reference": () => find(".pick-reference").click(),
  batch: openBatch,
  stay: () => { find(".batch-offer").hidden = true; },
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
  const { do: command, zoom: zoomed, view: viewed, save, example, color: chosen } = button.dataset;
  if (command || zoomed) commands[command || zoomed]();
  else if (viewed) setView(viewed);
  else if (save && !("busy" in root.dataset) && !("saving" in button.dataset)) {
    button.dataset.saving = "";
    setTimeout(() => delete button.dataset.saving, 60_000);  // gradio reports nothing if the server is gone
    root.viewer.what = save;
    trigger("save");
  } else if (chosen) { color = chosen; swatches(); }
  else if (example) {
    newRequest("Finding the vessels");
    trigger("example", { index: Number(example) });
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
  const distance = shown.stops.map((value) => Math.abs(value - wanted));
  setStop(distance.indexOf(Math.min(...distance)));
});
exact.addEventListener("change", () => {
  typing = false;
  exact.value = written(shown.stops[stop]);
  exact.setAttribute("aria-invalid", false);
  settle();
});
opacity.addEventListener("input", () => shown && schedule(drawPaint));

um.addEventListener("input", () => shown && updateMeasures());

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
  event.preventDefault();
  delete root.dataset.drag;
  if (root.getClientRects().length) send([...event.dataTransfer.files], overReference(event) ? "reference" : "photograph");
});
document.addEventListener("paste", (event) => {
  if (root.isConnected && root.getClientRects().length) send([...(event.clipboardData?.files || [])], "photograph");
});

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

for (const { key, title, meaning, icc, reliable } of props.measures) {
  const tile = document.createElement("div"), value = tag("strong", "–");
  value.dataset.measure = key;
  value.toggleAttribute("data-live", key === "vessel_density");
  tile.append(tag("h3", title), value, tag("p", meaning));
  if (props.agreement) tile.append(tag("p", `ICC ${icc[0].toFixed(2)} to ${icc[1].toFixed(2)}`));
  find(reliable ? ".measures > .tiles" : ".measures details .tiles").append(tile);
}
find(".measures .icc").hidden = !props.agreement;

find(".examples").append(...props.examples.map(({ name, src }, index) => {
  const button = Object.assign(document.createElement("button"), { type: "button", title: name });
  button.dataset.example = index;
  button.append(Object.assign(document.createElement("img"), { src, alt: `Example: ${name}`, width: 72, height: 72 }));
  return button;
}));
find(".examples").hidden = props.examples.length === 0;

new ResizeObserver(() => resize()).observe(sheet);
const queue = document.getElementById("status");
if (queue) new MutationObserver(showQueue).observe(queue, { subtree: true, childList: true, characterData: true });
document.addEventListener("fullscreenchange", () => root.toggleAttribute("data-full", document.fullscreenElement !== null));
find("[data-zoom=full]").hidden = !document.fullscreenEnabled;
root.viewer = {
  file: null,  // the last upload
  restMs: 400,  // from the last move of the slider until the measures are asked for
  showMeasures,
  what: null,  // kind of the file to save
  settings: () => ({ request, photo: shown?.photo ?? null, reference: reference?.file ?? null, threshold: shown ? shown.stops[stop] : null, color,
    opacity: Number(opacity.value), um_per_px: umPerPx(), what: root.viewer.what }),
  refine: (value) => { if (reference) { reference.cldice = value?.threshold === undefined ? { threshold: shown.stops[stop], value: null } : value; updateNumbers(); } },
  saved: () => all("[data-saving]").forEach((button) => delete button.dataset.saving),
  stopBusy,
};
watch("value", () => receive(props.value));
if (!window.DecompressionStream) showMessage(".viewer > .error", ["This browser is too old for the page, which needs one of 2023 or later: update it."]);
