// ---- drawing

// What the drawing functions take: the open photograph, how it is shown, and its canvases. `beside` has the same keys.
const openPane = () => ({ shown, photo, levels, codes, near, rowsNear, stop, view, place, measured, board });

// Make the canvases as large as their place on the screen.
function fitCanvases({ photo, paint, marks }) {
  const box = photo.parentElement.getBoundingClientRect(), screen = window.devicePixelRatio || 1;
  const width = Math.max(1, Math.round(box.width * screen)), height = Math.max(1, Math.round(box.height * screen));
  for (const canvas of [photo, paint, marks]) {
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  }
}

function resize() {
  if (!shown) return;
  const { width, height } = shown;
  fitCanvases(board);
  if (place.fitted) {
    place.scale = fitScale();
    place.x = (photoCanvas.width - width * place.scale) / 2;
    place.y = (photoCanvas.height - height * place.scale) / 2;
  }
  keepInside();
  all("[data-zoom]").forEach((button) => {
    if (button.dataset.zoom === "in") button.disabled = place.scale >= MAX_SCALE;
    if (button.dataset.zoom === "out") button.disabled = place.scale <= leastScale();
  });
  sheet.dataset.zoomed = place.fitted ? "no" : "yes";
  find(".scale").textContent = `${Math.round(100 * place.scale)} %`;
  redraw();
}

function redraw() {
  for (const draw of [drawPhoto, drawPaint, drawMarks, drawBeside]) schedule(draw);
}

const scaleToFit = ({ shown, board }) => Math.min(board.photo.width / shown.width, board.photo.height / shown.height);
const fitScale = () => scaleToFit({ shown, board });
const leastScale = () => Math.min(1, fitScale());

function keepInside() {
  const clamp = (corner, size, room) => (size <= room ? (room - size) / 2 : Math.min(0, Math.max(room - size, corner)));
  // Whole pixels, so that at 1:1 and above each pixel of the photograph stays square and sharp.
  place.x = Math.round(clamp(place.x, shown.width * place.scale, photoCanvas.width));
  place.y = Math.round(clamp(place.y, shown.height * place.scale, photoCanvas.height));
}

function drawPhoto() {
  if (shown) drawPhotoOf(openPane());
}

function drawPhotoOf({ shown, photo, place, view, board: { photo: canvas } }) {
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  const box = [place.x, place.y, shown.width * place.scale, shown.height * place.scale];
  if (["mask", "probability", "reference"].includes(view)) {
    context.fillStyle = "#000";
    context.fillRect(...box);
    return;
  }
  context.imageSmoothingEnabled = place.scale < 2;
  context.imageSmoothingQuality = "high";
  context.drawImage(photo, ...box);
}

const VESSEL = 4096;  // added to a sum of probabilities for each vessel; a screen pixel never stands for so many pixels

// For each code, the weight that a pixel adds, and to which of the sums of its screen pixel (1, 3 or 4 a view).
function weights({ shown, stop, view }) {
  const size = 2048, part = new Int32Array(size), weight = new Float64Array(size);
  for (let code = 0; code < size; code++) {
    const level = code & 255, vessel = level > stop, truth = (code & 256) !== 0, kind = code >> 9;
    if (view === "probability") weight[code] = level ? shown.stops[level - 1] + (vessel ? VESSEL : 0) : 0;
    else if (view === "reference") weight[code] = truth && level ? 1 : 0;
    else if (view === "errors") {
      part[code] = truth ? (vessel ? 0 : 1) : 2;
      weight[code] = (truth || vessel) && level ? 1 : 0;
    } else {
      if (view === "kinds") part[code] = kind ? kind - 1 : 3;  // without a kind until the slider rests
      weight[code] = vessel ? 1 : 0;
    }
  }
  return { part, weight };
}

// Colours of the sums of a view that has several.
function partColors(view) {
  if (view === "errors") return ["hit", "miss", "false alarm"].map((kind) => props.colors[kind]);
  if (view !== "kinds") return null;
  const colors = props.kind_colors[safeKinds ? "safe" : "usual"];
  return [colors.artery, colors.vein, colors.both, [150, 150, 150]];
}

// Draw the border of the pixels that are mostly vessel, within a box of the screen.
function drawContour(out, covered, wide, [left, top, right, bottom]) {
  const [r, g, b] = rgb(props.color), line = (0xff000000 | (b << 16) | (g << 8) | r) >>> 0;
  for (let row = top; row < bottom; row++) {
    for (let k = row * wide + left; k < row * wide + right; k++) {
      const beside = k + 1 < row * wide + right && covered[k] !== covered[k + 1];
      if (beside || (row + 1 < bottom && covered[k] !== covered[k + wide])) out[k] = line;
    }
  }
}

function rgb(hex) {
  return [1, 3, 5].map((k) => parseInt(hex.slice(k, k + 2), 16));
}

function drawPaint() {
  if (!shown) return;
  updateNumbers();
  drawPaintOf(openPane());
}

function drawPaintOf(pane) {
  const { codes, near, rowsNear, stop, view, board } = pane;
  const { width, height } = pane.shown;
  const { scale, x, y } = pane.place;
  const wide = board.paint.width, high = board.paint.height;
  const context = board.paint.getContext("2d");
  if (board.image?.width !== wide || board.image.height !== high) board.image = context.createImageData(wide, high);
  const out = new Uint32Array(board.image.data.buffer);  // 0xAABBGGRR: browsers run on little-endian machines only
  out.fill(0);
  const { part, weight } = weights(pane);
  for (let code = 0; code < part.length; code++) part[code] *= wide;
  const colors = partColors(view);
  const sums = new Float64Array((colors?.length ?? 1) * wide);
  const white = view === "mask" || view === "reference";
  const [r, g, b] = white ? [255, 255, 255] : rgb(color);
  const plain = (b << 16) | (g << 8) | r;
  const alpha = 255 * (white ? 1 : Number(opacity.value));
  const covered = view === "probability" ? new Uint8Array(wide * high) : null;
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
  const top = Math.max(0, Math.floor(y)), bottom = Math.min(high, Math.ceil(y + height * scale));
  for (let line = top; line < bottom; line++) {
    let rows = 1;
    sums.fill(0);
    if (shrunk) {
      while (row < height && rowOf(row) < line) row++;
      const start = row;
      for (; row < height && rowOf(row) === line; row++) {
        if (whole) {
          for (let column = 0, k = row * width; column < width; column++, k++) add(codes[k], columnOf[column]);
        } else for (let k = rowsNear[row]; k < rowsNear[row + 1]; k++) add(near[k] >>> 20, columnOf[near[k] & 0xfffff]);
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
      if (covered) {
        const vessels = Math.floor(sums[k] / VESSEL);
        covered[at] = vessels * share >= 0.5 ? 1 : 0;
        out[at] = magma[Math.min(255, Math.round(255 * (sums[k] - vessels * VESSEL) * share))];
      } else if (colors) {
        let total = 0;
        const mixed = [0, 0, 0];
        for (let part = 0; part < colors.length; part++) {
          const count = sums[part * wide + k];
          total += count;
          for (let channel = 0; channel < 3; channel++) mixed[channel] += count * colors[part][channel];
        }
        if (!total) continue;
        for (let channel = 0; channel < 3; channel++) mixed[channel] = Math.round(mixed[channel] / total);
        out[at] = (Math.round(255 * total * share) << 24) | (mixed[2] << 16) | (mixed[1] << 8) | mixed[0];
      } else if (sums[k]) out[at] = (Math.round(alpha * sums[k] * share) << 24) | plain;
    }
  }
  if (covered) drawContour(out, covered, wide, [left, top, right, bottom]);
  context.putImageData(board.image, 0, 0);
}

function setView(name) {
  view = name;
  root.dataset.view = name;
  all(".views button").forEach((button) => button.setAttribute("aria-pressed", button.dataset.view === name));
  find(".look").disabled = !["overlay", "compare", "kinds"].includes(name);
  updateLegend();
  if (shown) { measureLater(); redraw(); }
}

function setStop(k) {
  stop = Math.min(shown.stops.length - 1, Math.max(0, k));
  measureLater();
  schedule(drawPaint);
  schedule(drawMarks);
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
