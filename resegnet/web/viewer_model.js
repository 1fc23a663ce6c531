// ---- which model: the choice, where there is one

const modelChoice = find(".model select");

// What the page asks of the server is of this model; "" where there is no choice.
const chosenModel = () => modelChoice.value;

function nameModel(name) {
  const offered = props.models.find((model) => model.name === name);
  if (!offered) return;
  modelChoice.value = name;
  find(".model .line").textContent = offered.line;
}

modelChoice.append(...props.models.map(({ name }) => Object.assign(tag("option", name), { value: name })));
find(".model").hidden = props.models.length === 0;
nameModel(props.models[0]?.name);

// What is shown is always of the model that is named: an open photograph is segmented anew.
modelChoice.addEventListener("change", () => {
  nameModel(modelChoice.value);
  if (!shown) return saveVisit();  // else it is saved once the result has come
  newRequest("Finding the vessels");
  trigger("anew");
});
