// The picture with its threshold slider. gradio runs this file and the other `viewer_*.js`, joined, once, with `element`,
// `props`, `trigger` and `watch` in scope. Every threshold is drawn from one array of levels (see `levels.py`),
// without the server.

const root = element.querySelector(".viewer");
const find = (selector) => root.querySelector(selector);
const all = (selector) => [...root.querySelectorAll(selector)];
const stage = find(".stage"), sheet = find(".sheet"), divider = find(".divider");
const photoCanvas = find(".photo"), paintCanvas = find(".paint"), marksCanvas = find(".marks");
const board = { photo: photoCanvas, paint: paintCanvas, marks: marksCanvas, image: null };  // `image`: ImageData of `paint`
const slider = find("#viewer-threshold"), exact = find(".exact"), opacity = find(".opacity"), um = find(".um");

const SWATCHES = [[props.color, "cyan"], ["#ffe000", "yellow"], ["#ff4fd8", "magenta"], ["#7cff4f", "green"], ["#ffffff", "white"]];
const MAX_SCALE = 32;  // screen pixels for one of the photograph

let shown = null;  // the open photograph as the server sent it, `ShownPhotograph` in messages.py
let photo = null;  // HTMLImageElement
let levels = null;  // Uint8Array (H * W)
let codes = null;  // the levels, plus 256 where the reference has a vessel, plus 512 times the kind of the vessel
let near = null;  // pixels at or above the second stop, row by row: column + 2 ** 20 * code
let rowsNear = null;  // where each row begins in `near`
let reference = null;  // the manual segmentation, `ShownReference` in messages.py, with sums and curve
let stop = 0;  // number of the chosen threshold in shown.stops
let view = "overlay";
let color = props.color;
let place = { scale: 1, x: 0, y: 0, fitted: true };  // screen pixels per photograph pixel, and the upper left corner
let offered = [];  // files for the Batch tab
let typing = false;  // the number in the threshold's box is not finished yet
let measured = null;  // `Measured` in numbers.py, of the open photograph, with what `loadDetails` unpacked
let safeKinds = false;  // arteries and veins in colours that colour-blind people tell apart
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
  for (const control of all(".files button, .reference button, .model select")) control.disabled = !idle;
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
  find(".sent").textContent = "";
  find(".doing").textContent = place ? `Waiting, ${place[1]} before you` : doing;
}

function stopBusy() {
  delete root.dataset.busy;
  setIdle(true);
  if (shown) nameModel(shown.model);  // after a failure that of before
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
  sending?.abort();
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

function openBatch() {
  find(".batch-offer").hidden = true;
  openTab("Batch");
  giveToBatch(offered);
}

async function send(files, event) {
  const file = files[0];
  if (event === "photograph" && (files.length > 1 || /\.zip$/i.test(file?.name))) return offerBatch(files);
  if (!file || (event === "reference" && (!shown || "busy" in root.dataset))) return;
  const mine = newRequest("Sending the file");
  try {
    const path = await sendFile(file, (share) => { find(".sent").textContent = `${Math.round(100 * share)} %`; });
    if (mine !== request) return;
    root.viewer.file = { path, orig_name: file.name, meta: { _type: "gradio.FileData" } };
    startBusy(event === "photograph" ? "Finding the vessels" : "Comparing");
    trigger(event);
  } catch (error) {
    if (mine !== request) return;
    stopBusy();
    showMessage(".viewer > .error", [`'${file.name}' could not be sent (${error.message || error}); try again.`]);
  }
}

// gradio gives an address to the files of the viewer only, not to those among the numbers.
const address = (file) => file.url ?? `${window.gradio_config.root}${window.gradio_config.api_prefix}/file=${file.path}`;

async function inflate(file) {
  const answer = await fetch(address(file));
  if (!answer.ok) throw new Error(`the server answered with status ${answer.status}`);
  return new Uint8Array(await new Response(answer.body.pipeThrough(new DecompressionStream("deflate"))).arrayBuffer());
}

async function unpack(file) {
  const bytes = await inflate(file);
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
  if (answer.nothing) forgetVisit();
  if (answer.nothing || answer.kept) return stopBusy();
  if (answer.error || answer.reference?.error) {
    showMessage(answer.error ? ".viewer > .error" : ".reference .error", [answer.error || answer.reference.error]);
    stopBusy();
    return;
  }
  try {
    if (answer.reference && !answer.levels) {
      const vessels = await unpack(answer.reference.pixels);
      if (answer.request !== request) return;
      compareWith(answer.reference, vessels);
    } else {
      const parts = [load(answer.photograph.url), unpack(answer.levels), answer.reference && unpack(answer.reference.pixels)];
      const [picture, unpacked, vessels] = await Promise.all(parts);
      if (answer.request !== request) return;
      const before = shown?.photo === answer.photo ? { place: { ...place }, view } : null;  // the same photograph, by another model
      [shown, photo, levels] = [answer, picture, unpacked];
      open();
      if (answer.reference) compareWith(answer.reference, vessels);
      if (before) goBackTo(before);
    }
  } catch (error) {
    if (answer.request !== request) return;
    showMessage(".viewer > .error", [`The result could not be loaded (${error.message}); open the file again.`]);
  }
  stopBusy();
}

// Join levels, manual segmentation and kinds of the vessels to one number a pixel.
function combine() {
  codes = joinCodes(levels, reference?.vessels, measured?.kindPixels);
  ({ near, rowsNear } = listNear(codes, shown));
}

function joinCodes(levels, vessels, kinds) {
  if (!vessels && !kinds) return levels;
  const codes = new Uint16Array(levels.length);
  for (let k = 0; k < codes.length; k++) codes[k] = levels[k] | (vessels?.[k] << 8) | (kinds?.[k] << 9);
  return codes;
}

// List the pixels at or above the second stop. Three of four lie below it; to skip those makes a slider step 4 times faster.
function listNear(codes, { width, height }) {
  let count = 0;
  for (let k = 0; k < codes.length; k++) if (codes[k] > 1) count++;
  const near = new Uint32Array(count), rowsNear = new Int32Array(height + 1);
  for (let row = 0, k = 0, at = 0; row < height; row++) {
    for (let column = 0; column < width; column++, k++) if (codes[k] > 1) near[at++] = column | (codes[k] << 20);
    rowsNear[row + 1] = at;
  }
  return { near, rowsNear };
}

function open() {
  const { width, height, stops } = shown;
  nameModel(shown.model);
  for (const line of all(".icc")) line.hidden = shown.model !== props.agreement;
  root.viewer.saved();  // no download of an earlier photograph keeps its button
  shown.atOrAbove = suffixSums(shown.counts);
  const start = shown.start ?? kept;
  stop = start === null ? shown.fitted : nearestStop(start);
  if (shown.start !== null) carried = shown.stops[stop];  // the threshold came from the Batch tab, which keeps its own
  drawDensity();
  typing = false;
  exact.setAttribute("aria-invalid", false);
  slider.max = stops.length - 1;
  find(".fitted").textContent = `Recommended: ${written(stops[shown.fitted])}.`;
  find(".mark").style.setProperty("--at", shown.fitted / (stops.length - 1));
  find(".name").textContent = shown.name;
  const facts = { Photograph: `${width} × ${height} px`, "Field of view": `${shown.atOrAbove[0].toLocaleString("en")} px` };
  if (shown.has_kinds) facts.Eye = eyeText(shown.shapes);
  find(".numbers dl").replaceChildren(...Object.entries(facts).flatMap(([name, value]) => [tag("dt", name), tag("dd", value)]));
  showMessage(".viewer > .warnings", shown.warnings);
  place.fitted = true;
  setScale();
  measured = null;
  for (const button of all(".views [data-view=kinds], [data-save=kinds]")) button.hidden = !shown.has_kinds;
  updateLayerButtons();
  measureLater();
  divide(0.5);
  compareWith(null);
  root.dataset.state = "shown";
  if (beside?.entry.photo === shown.photo) closeBeside();
  else if (beside && beside.shown?.model !== shown.model) openBeside(beside.entry);  // both are of one model
  else if (!beside) reopenBeside();
  rememberPhotograph();
  resize();
  if (document.activeElement === document.body) sheet.focus({ preventScroll: true });
  announce(`Finished. ${share()} of the field of view is vessel.`);
}

// The scale of the file; without one, what the visitor typed stays for photographs of the same size: it is of their camera.
function setScale() {
  const size = `${shown.width} x ${shown.height}`, typed = um.dataset.of === "visitor";
  if (typed && um.dataset.photo === shown.photo) return;  // the same photograph, by another model
  if (shown.um_per_px !== null) um.value = shown.um_per_px;
  else if (!typed || um.dataset.size !== size) um.value = "";
  if (shown.um_per_px !== null || um.value === "") um.dataset.of = "file";
  um.dataset.size = size;
  um.dataset.photo = shown.photo;
}

function goBackTo({ place: earlier, view: name }) {
  if (!find(`.views [data-view=${name}]`).hidden) setView(name);
  place = earlier;
  resize();
}

function close() {
  newRequest();
  stopBusy();
  trigger("cancel");
  clearTimeout(rest);
  closeBeside();
  shown = photo = levels = codes = near = reference = measured = null;
  root.dataset.state = "empty";
  visit.open = false;
  saveVisit();
  drawStrip();
  showMessage(".viewer > .warnings", []);
  find("[data-do=pick]").focus();
}

// Show a manual segmentation over the levels, or remove it (null).
function compareWith(sent, vessels) {
  reference = sent;
  if (sent) reference.vessels = vessels;
  combine();
  find(".reference").dataset.reference = sent ? "shown" : "none";
  showMessage(".reference .doubt", []);
  find("[data-do=truth]").hidden = !shown.has_truth || sent !== null;
  for (const button of all("[data-view=errors], [data-view=reference], [data-save=errors]")) button.hidden = !sent;
  if (sent) {
    reference.atOrAbove = suffixSums(sent.counts);
    reference.curve = shown.stops.map((_, k) => rates(k)).filter((r) => !Number.isNaN(r.precision));
    find(".reference .of span").textContent = sent.name;
    showMessage(".reference .notes", sent.notes);
    showMessage(".reference .doubt", sent.doubt ? [sent.doubt] : []);
    setView("errors");
    settle();
  } else setView(["errors", "reference"].includes(view) || (view === "kinds" && !shown.has_kinds) ? "overlay" : view);
}
