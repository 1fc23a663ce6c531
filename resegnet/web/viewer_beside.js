// ---- another photograph of the visit beside the open one; both panes show the same part of their pictures

let beside = null;  // the keys of `openPane`, with its entry of the strip, the number of its request and its element
let besideRequest = 0;

const otherPhotographs = () => (shown ? visit.strip.filter(({ photo }) => photo !== shown.photo) : []);

function openBeside(entry) {
  closeBeside();
  const element = find(".beside-template").content.firstElementChild.cloneNode(true);
  const [photo, paint, marks] = element.querySelectorAll("canvas");
  beside = { entry, element, request: ++besideRequest, shown: null, measured: null, asked: "", view: "overlay",
    place: { scale: 1, x: 0, y: 0 }, board: { photo, paint, marks, image: null } };
  find(".pane").after(element);
  listenTo(photo.parentElement);
  tellBeside(`Opening '${entry.name}'`);
  root.dataset.beside = "";
  updateBesideButtons();
  updateBesideTexts();
  updatePairNumbers();
  visit.beside = entry.photo;
  saveVisit();
  trigger("beside");
}

// Once the page is loaded again, with the photograph that was open before: `shown`, not yet put first in the strip.
function reopenBeside() {
  const entry = visit.strip.find(({ photo }) => photo === visit.beside);
  if (entry && visit.strip[0].photo === shown.photo) openBeside(entry);
  else visit.beside = null;
}

// The strip is below the picture: go up to it, from where Tab leads on to the panes.
function besideFromStrip(entry) {
  if (beside?.entry.photo === entry.photo) return closeBeside();
  openBeside(entry);
  find(".bar [data-do=beside]").focus({ preventScroll: true });
  if (stage.getBoundingClientRect().top < 0) find(".picture").scrollIntoView({ block: "start" });
}

function closeBeside() {
  if (!beside) return;
  const { element } = beside, focused = element.contains(document.activeElement);
  beside = null;
  element.remove();
  fingers.clear();
  delete root.dataset.beside;
  visit.beside = null;
  saveVisit();
  updateBesideButtons();
  updatePairNumbers();
  if (focused) find(".bar [data-do=beside]").focus({ preventScroll: true });
}

function updateBesideButtons() {
  const button = find(".bar [data-do=beside]");
  button.hidden = otherPhotographs().length === 0 && !beside;
  button.setAttribute("aria-pressed", beside !== null);
  for (const pair of all("[data-pair]")) pair.setAttribute("aria-pressed", visit.strip[Number(pair.dataset.pair)].photo === beside?.entry.photo);
}

function tellBeside(text) {
  beside.element.querySelector(".waiting").textContent = text;
}

// What the server is told about the second pane.
function besideSettings() {
  return { ...root.viewer.settings(), request: beside?.request ?? null, photo: beside?.entry.photo ?? null, model: beside?.shown?.model ?? chosenModel(),
    threshold: beside?.shown ? beside.shown.stops[beside.stop] : null, needs: beside ? needs(beside.view) : [] };
}

// Take the photograph for the second pane, an error, or null if the server did not answer.
async function showBeside(answer) {
  const pane = beside;
  if (!pane || (answer && answer.request !== pane.request)) return;
  let problem = answer ? answer.error : `'${pane.entry.name}' could not be opened; try again.`;
  try {
    if (!problem) {
      const [photo, levels] = await Promise.all([load(address(answer.photograph)), unpack(answer.levels)]);
      answer.atOrAbove = suffixSums(answer.counts);
      const stop = kept === null ? answer.fitted : nearestStop(kept, answer.stops);
      Object.assign(pane, { shown: answer, photo, levels, codes: levels, ...listNear(levels, answer), stop });
    }
  } catch (error) {
    problem = `'${pane.entry.name}' could not be loaded (${error.message}); try again.`;
  }
  if (beside !== pane) return;
  tellBeside(problem ?? "");
  measureBeside();
  schedule(drawBeside);
}

// The manual segmentation belongs to the open photograph, and some models tell no arteries: an overlay instead.
function besideView() {
  return ["errors", "reference"].includes(view) || (view === "kinds" && !beside.shown.has_kinds) ? "overlay" : view;
}

// The same part of the picture as in the first pane, in fractions of its width and height.
function linkPlace() {
  fitCanvases(beside.board);
  const { width, height } = beside.shown, { photo: canvas } = beside.board;
  const scale = scaleToFit(beside) * place.scale / fitScale();
  const middleX = (photoCanvas.width / 2 - place.x) / (shown.width * place.scale);
  const middleY = (photoCanvas.height / 2 - place.y) / (shown.height * place.scale);
  beside.place = { scale, x: Math.round(canvas.width / 2 - middleX * width * scale), y: Math.round(canvas.height / 2 - middleY * height * scale) };
  canvas.parentElement.dataset.zoomed = sheet.dataset.zoomed;
}

function drawBeside() {
  if (!shown || !beside?.shown) return;
  beside.view = beside.element.dataset.view = besideView();
  linkPlace();
  drawPhotoOf(beside);
  drawPaintOf(beside);
  drawMarksOf(beside);
  updateBesideTexts();
  updatePairNumbers();
}

// Captions of both panes.
function updateBesideTexts() {
  if (!shown || !beside) return;
  const facts = (pane) => `threshold ${written(pane.shown.stops[pane.stop])}, ${share(pane)} vessel`;
  const caption = (element, name, text) => element.querySelector(".caption p").replaceChildren(tag("b", name), tag("span", text));
  caption(find(".pane"), shown.name, facts(openPane()));
  if (!beside.shown) return caption(beside.element, beside.entry.name, "");
  caption(beside.element, beside.entry.name, (beside.view === view ? "" : `${beside.view}, `) + facts(beside));
  beside.board.photo.parentElement.setAttribute("aria-label", describe(beside));
  const button = beside.element.querySelector("[data-do=same-threshold]"), threshold = shown.stops[stop];
  button.hidden = beside.shown.stops[beside.stop] === threshold;
  Object.assign(button, { textContent: `Use ${written(threshold)}`, title: `Show ${beside.entry.name} at the threshold of ${shown.name}` });
}

function sameThreshold() {
  beside.stop = nearestStop(shown.stops[stop], beside.shown.stops);
  beside.board.photo.parentElement.focus({ preventScroll: true });  // the button goes
  announce(`${share(beside)} of the field of view is vessel in ${beside.entry.name}.`);
  measureBeside();
  schedule(drawBeside);
}

// ---- numbers of both photographs

// Ask for the measures of the second photograph, once for each threshold and what is drawn.
function measureBeside() {
  if (!beside?.shown) return;
  beside.view = besideView();
  const asked = JSON.stringify([beside.stop, needs(beside.view)]);
  if (asked === beside.asked) return;
  beside.asked = asked;
  trigger("measure_beside");
}

async function showMeasuresBeside(value) {
  const pane = beside, current = () => beside === pane && pane?.shown && value?.photo === pane.entry.photo && value.threshold === pane.shown.stops[pane.stop];
  if (pane && !value) pane.asked = "";
  if (!current()) return;
  try {
    await loadDetails(value);
  } catch {
    pane.asked = "";
    return;
  }
  if (!current()) return;
  pane.measured = value;
  pane.codes = joinCodes(pane.levels, null, value.kindPixels);
  Object.assign(pane, listNear(pane.codes, pane.shown));
  schedule(drawBeside);
}

function updatePairNumbers() {
  const table = find(".pair-numbers");
  table.hidden = !shown || !beside;
  if (table.hidden) return;
  const known = [measured?.measures, beside.measured?.measures];
  const rows = props.measures.filter(({ key, needs_anatomy, reliable }) => reliable && (!needs_anatomy || known.some((measures) => measures && key in measures)));
  const sameSize = beside.shown && shown.width === beside.shown.width && shown.height === beside.shown.height;
  const scale = beside.shown?.um_per_px ?? (sameSize && um.dataset.of === "visitor" ? umPerPx() : null);  // a scale that was typed is of the camera
  const line = (title, values, kind) => {
    const row = document.createElement("tr");
    row.append(Object.assign(tag("th", title), { scope: kind === "th" ? "col" : "row" }), ...values.map((value) => Object.assign(tag(kind, value), kind === "th" ? { scope: "col" } : {})));
    return row;
  };
  const second = (text) => (beside.shown ? text() : "–");
  const cell = (measure, pane, scale, waiting) => freshDetails(pane)?.reasons?.[measure.key] ?? measureText(measure, pane, scale, waiting);
  const thresholds = [written(shown.stops[stop]), second(() => written(beside.shown.stops[beside.stop]))];
  table.tHead.replaceChildren(line("Measure", [shown.name, beside.entry.name], "th"));
  table.tBodies[0].replaceChildren(line("Threshold", thresholds, "td"), ...rows.map((measure) => line(measure.title, [
    cell(measure, openPane(), umPerPx(), find(".measures").ariaBusy === "true"),
    second(() => cell(measure, freshDetails(beside) ? beside : { ...beside, measured: null }, scale, true)),
  ], "td")));
}

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && beside && !shortcuts.open && root.isConnected && root.getClientRects().length) closeBeside();
});
