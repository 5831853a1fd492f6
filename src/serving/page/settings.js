// The panel of sampling settings: kept in the browser, turned into fields of a request.

import { byId, load, save } from "./dom.js";

// What the panel starts with. An empty value leaves the field out of the request: the server takes the model's own.
const DEFAULTS = {
  system: "", temperature: "", top_p: "", min_p: "", top_k: "", max_tokens: 512, seed: "", stop: "",
  logprobs: false, plain: false,
};
// Where sliders stand while their value is empty: what a server without defaults takes.
const NEUTRAL = { temperature: 1, top_p: 1, min_p: 0 };
const NUMBERS = ["temperature", "top_p", "min_p", "top_k", "max_tokens", "seed"];
const SLIDERS = ["temperature", "top_p", "min_p"];
const TEXTS = ["system", "stop"];
const SWITCHES = ["logprobs", "plain"];

function control(name) {
  return byId(name === "stop" ? "stop-strings" : name);  // "stop" is the button
}

export class Settings {
  constructor(changed) {
    this.values = { ...DEFAULTS, ...load(localStorage, "settings") };
    if (load(sessionStorage, "plain")) this.values.plain = true;  // the model has no chat template
    this.changed = changed;
    for (const name of NUMBERS) this.bind(name, "input", (input) => this.number(name, input));
    for (const name of TEXTS) this.bind(name, "input", (input) => input.value);
    for (const name of SWITCHES) this.bind(name, "change", (input) => input.checked);
    for (const name of SLIDERS) {
      byId(`${name}-slider`).addEventListener("input", (event) => {
        byId(name).value = event.target.value;
        byId(name).dispatchEvent(new Event("input"));
      });
    }
    byId("defaults").addEventListener("click", () => this.reset());
    this.show();
  }

  bind(name, event, read) {
    const input = control(name);
    input.addEventListener(event, () => {
      const value = read(input);
      if (value === undefined) return;
      this.set(name, value);
    });
  }

  // The number typed; undefined where it is none that the server would take.
  number(name, input) {
    const right = input.value !== "" ? input.checkValidity() : !input.validity.badInput;
    input.setAttribute("aria-invalid", String(!right));
    if (!right) return undefined;
    if (SLIDERS.includes(name)) this.slide(name, input.value);
    return input.value === "" ? "" : Number(input.value);
  }

  slide(name, value) {
    const slider = byId(`${name}-slider`);
    slider.value = value === "" ? NEUTRAL[name] : value;
    const share = (slider.value - slider.min) / (slider.max - slider.min);
    slider.style.setProperty("--fill", `${share * 100}%`);
  }

  set(name, value) {
    this.values[name] = value;
    if (name === "plain") byId("plain").checked = value;
    if (name === "plain") save(sessionStorage, "plain", null);
    save(localStorage, "settings", { ...this.values, plain: this.values.plain && !this.forced });
    this.changed(name);
  }

  // Plain text because the model has no chat template.
  get forced() {
    return this.values.plain && Boolean(load(sessionStorage, "plain"));
  }

  // Plain text for this visit, as there is no chat template.
  forcePlain() {
    this.values.plain = true;
    save(sessionStorage, "plain", true);
    this.show();
  }

  reset() {
    this.values = { ...DEFAULTS, plain: Boolean(load(sessionStorage, "plain")) };
    save(localStorage, "settings", null);
    this.show();
    this.changed("plain");
  }

  show() {
    for (const name of [...NUMBERS, ...TEXTS]) control(name).value = this.values[name];
    for (const name of SWITCHES) byId(name).checked = Boolean(this.values[name]);
    for (const name of SLIDERS) this.slide(name, this.values[name]);
    for (const name of NUMBERS) byId(name).setAttribute("aria-invalid", "false");
  }

  // Strings that end an answer: one a line, with \n and \t for what cannot be typed there.
  stops() {
    return this.values.stop.split("\n").filter((line) => line !== "")
      .map((line) => line.replace(/\\([nt\\])/g, (_, c) => ({ n: "\n", t: "\t", "\\": "\\" })[c]));
  }

  // The fields of a request; what is empty is left out. "Off" is sent: it may not be the model's own value.
  fields(chat) {
    const { values } = this;
    const fields = {};
    for (const name of NUMBERS) {
      if (values[name] !== "") fields[name] = values[name];
    }
    if (this.stops().length) fields.stop = this.stops();
    if (values.logprobs) Object.assign(fields, chat ? { logprobs: true, top_logprobs: 5 }
                                                    : { logprobs: 5 });
    return fields;
  }
}
