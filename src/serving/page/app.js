// Puts the page together: tabs, theme, key, composer, and the model's name.

import { apiKey, request, setApiKey } from "./api.js";
import { Chat } from "./chat.js";
import { Continuation } from "./continuation.js";
import { byId, el, formatCount, formatRate, formatSeconds, load, save } from "./dom.js";
import { drawModel, Live } from "./live.js";
import { Settings } from "./settings.js";

const page = {
  models: [],
  settings: null,
  chat: null,
  text: null,
  live: null,

  model: () => page.models[0]?.id,

  // The mode in use: the conversation, or plain text that is continued.
  get mode() {
    return page.settings.values.plain ? page.text : page.chat;
  },

  describe() {
    const model = page.models[0];
    if (!model) return "";
    const length = model.max_model_len;
    return length ? `${model.id}, ${formatCount(length)} tokens of context` : String(model.id);
  },

  // `refused`: the server has just turned down the key of before, if there was one.
  askKey(then, refused = Boolean(apiKey())) {
    if (byId("key-dialog").open) return;
    page.afterKey = then;
    byId("key-value").value = apiKey();
    byId("key-refused").hidden = !refused;
    byId("key-dialog").showModal();
  },

  // Live numbers of the composer's line; without `timing` the answer is complete.
  used(timing, stats) {
    if (!stats) page.total = 0;
    else if (stats.prompt !== null) page.total = stats.prompt + stats.tokens;
    page.context(stats && stats.prompt === null ? page.total + stats.tokens : page.total);
    if (timing && stats.firstToken !== null) {
      byId("speed").textContent =
        `${formatRate(stats.rate ?? NaN)} tok/s \u00b7 ${formatSeconds(stats.firstToken)} to first token`;
    }
  },

  // The meter: `count` tokens of those that the model can take.
  context(count) {
    const length = page.models[0]?.max_model_len;
    byId("context").hidden = !(length > 0);
    if (!(length > 0)) return;
    const bar = byId("context-bar");
    bar.setAttribute("aria-valuemax", length);
    bar.setAttribute("aria-valuenow", Math.min(count, length));
    bar.classList.toggle("nearly", count > length * 0.9);
    bar.firstElementChild.style.width = `${Math.min(100, count / length * 100)}%`;
    byId("context-text").textContent = `${formatCount(count)} / ${formatCount(length)}`;
  },

  state(streaming) {
    byId("send").hidden = streaming;
    byId("stop").hidden = !streaming;
    document.body.classList.toggle("busy", streaming);
    byId("speed").textContent = streaming ? "waiting for the first token" : "";
  },

  noTemplate(text) {
    page.settings.forcePlain();
    byId("document").value = text;
    showMode();
    byId("mode-note").hidden = false;
    page.text.ask();
  },

  reachable(yes) {
    byId("model").classList.toggle("offline", !yes);
    byId("model").title = yes ? "Connected" : "No connection to the server";
  },
};

async function loadModels() {
  try {
    const list = await (await request("/v1/models")).json();
    page.models = Array.isArray(list.data) ? list.data : [];
    byId("model-name").textContent = String(page.model() ?? "no model");
    document.title = `${page.model() ?? "no model"} \u00b7 Atom`;
    page.reachable(true);
    drawModel(byId("model-facts"), page.models[0]);
    if (byId("empty-model")) byId("empty-model").textContent = page.describe();
    page.context(page.total);
    page.live.start();
  } catch (error) {
    byId("model-name").textContent = error.kind === "key" ? "key needed" : "not connected";
    page.reachable(false);
    if (error.kind === "key") page.askKey(loadModels);
    else setTimeout(loadModels, 3000);
  }
}

function showMode() {
  const { plain } = page.settings.values;
  byId("log").hidden = plain;
  byId("composer-row").hidden = plain;
  byId("continuation").hidden = !plain;
  byId("send").textContent = plain ? "Continue" : "Send";
  byId("keys-chat").hidden = plain;
  byId("keys-plain").hidden = !plain;
  byId("mode-note").hidden = true;
  byId("system-field").hidden = plain;
}

function submit(event) {
  event.preventDefault();
  if (page.mode.streaming) return;
  if (page.settings.values.plain) {
    page.text.ask();
    return;
  }
  const input = byId("input");
  const text = input.value;
  if (!text.trim()) return;
  input.value = "";
  page.chat.send(text);
}

function startTabs() {
  const tabs = ["chat", "live"].map((name) => byId(`tab-${name}`));
  const open = (tab) => {
    for (const one of tabs) {
      const chosen = one === tab;
      one.setAttribute("aria-selected", String(chosen));
      one.tabIndex = chosen ? 0 : -1;
      byId(one.getAttribute("aria-controls")).hidden = !chosen;
    }
    document.body.dataset.tab = tab.id.slice(4);
    page.live.show(tab.id === "tab-live");
    history.replaceState(null, "", tab.id === "tab-live" ? "#live" : location.pathname);
  };
  for (const tab of tabs) {
    tab.addEventListener("click", () => open(tab));
    tab.addEventListener("keydown", (event) => {
      if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
      const other = tabs[1 - tabs.indexOf(tab)];
      other.focus();
      open(other);
    });
  }
  open(byId(location.hash === "#live" ? "tab-live" : "tab-chat"));
}

// The system's theme, or the one chosen: the button goes round.
function startTheme() {
  const themes = ["system", "light", "dark"];
  let theme = themes.includes(load(localStorage, "theme")) ? load(localStorage, "theme") : "system";
  const show = () => {
    if (theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    byId("theme").title = `Theme: ${theme}`;
    byId("theme").setAttribute("aria-label", `Theme: ${theme}`);
  };
  byId("theme").addEventListener("click", () => {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    save(localStorage, "theme", theme === "system" ? null : theme);
    show();
  });
  show();
}

function startPanel() {
  const toggle = (open) => {
    document.body.classList.toggle("panel-open", open);
    byId("panel").hidden = !open;
    byId("panel-toggle").setAttribute("aria-expanded", String(open));
  };
  byId("panel-toggle").addEventListener("click", () => toggle(byId("panel").hidden));
  byId("panel-close").addEventListener("click", () => {
    toggle(false);
    byId("panel-toggle").focus();
  });
  toggle(matchMedia("(min-width: 900px)").matches);
}

function startKey() {
  const dialog = byId("key-dialog");
  byId("key").addEventListener("click", () => page.askKey(loadModels, false));
  byId("key-cancel").addEventListener("click", () => dialog.close());
  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    setApiKey(byId("key-value").value.trim());
    dialog.close();
    const then = page.afterKey;
    if (!page.models.length || then !== loadModels) loadModels();
    then?.();
  });
}

function startComposer() {
  const input = byId("input");
  byId("composer").addEventListener("submit", submit);
  byId("stop").addEventListener("click", () => page.mode.stop());
  for (const box of [input, byId("document")]) {
    box.addEventListener("keydown", (event) => {
      const sends = box === input ? !event.shiftKey : event.ctrlKey || event.metaKey;
      if (event.key === "Enter" && sends && !event.isComposing) submit(event);
    });
  }
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || byId("key-dialog").open) return;
    if (page.mode.streaming) page.mode.stop();
    else if (!byId("panel").hidden && getComputedStyle(byId("panel-close")).display !== "none") {
      byId("panel-close").click();
    }
  });
  byId("new").addEventListener("click", () => {
    page.mode.reset();
    (page.settings.values.plain ? byId("document") : input).focus();
  });
  byId("export").addEventListener("click", () => {
    const file = new Blob([`${JSON.stringify(page.mode.export(), null, 2)}\n`], { type: "application/json" });
    const address = URL.createObjectURL(file);
    el("a", { href: address, download: "conversation.json" }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
  });
}

page.total = 0;
page.settings = new Settings((name) => {
  if (name === "plain") showMode();
});
page.text = new Continuation(page);
page.chat = new Chat(page);
page.live = new Live(page);
startTheme();
startPanel();
startKey();
startComposer();
startTabs();
showMode();
loadModels();
