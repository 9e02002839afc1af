// Where the dashboard begins: settings, then the page, then the sign-in.

import "../styles/base.css";
import { mount } from "svelte";
import { keepSettings } from "../ui/settings.svelte";
import { ui } from "../ui/ui.svelte";
import App from "./App.svelte";

keepSettings();
ui.start();

const target = document.getElementById("app");
if (target) {
  // The first paint has done its work.
  target.replaceChildren();
  mount(App, { target });
}
