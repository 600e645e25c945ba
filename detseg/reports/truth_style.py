"""How the page of truth looks, and what moves in it."""

from __future__ import annotations

STYLE = """
:root{color-scheme:light dark;--page:#f6f7f9;--card:#fff;--ink:#1b2330;--soft:#5b6675;--line:#d4dae2;--accent:#2563c9}
@media (prefers-color-scheme:dark){:root{--page:#12161c;--card:#1b212a;--ink:#e7ebf1;--soft:#9aa6b5;--line:#39434f;
--accent:#79a8ff}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);
font:16px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
header,main,footer{max-width:1500px;margin:0 auto;padding:0 18px}
header{padding-top:22px}
h1{font-size:1.5rem;margin:0 0 2px;overflow-wrap:anywhere}
p{margin:0 0 8px}
.soft{color:var(--soft);font-size:.9em}
[hidden]{display:none!important}
nav{position:sticky;top:0;z-index:2;background:var(--page);padding:8px 0;margin-bottom:8px;
border-bottom:1px solid var(--line)}
.classes{display:flex;flex-wrap:wrap;gap:6px;list-style:none;margin:0;padding:0;max-height:32vh;overflow-y:auto}
.classes li{display:inline-flex;align-items:center;gap:6px;padding:3px 10px;border:1px solid var(--line);
border-radius:16px;background:var(--card);font-size:.9rem}
.classes.many li{padding:1px 8px;font-size:.82rem}
.classes li[role=button]{cursor:pointer}
.classes li[role=button]:hover{border-color:var(--accent)}
.classes li[aria-pressed=true]{background:var(--accent);border-color:var(--accent);color:var(--card)}
.classes li[aria-pressed=true] .soft{color:inherit}
.swatch{width:12px;height:12px;flex:none}
.switches{display:flex;flex-wrap:wrap;gap:4px 18px;margin:8px 0 0;font-size:.9rem}
main{columns:330px;column-gap:16px;padding-bottom:24px}
figure{margin:0 0 18px;break-inside:avoid}
figure.large{column-span:all}
figure svg{display:block;width:100%;height:auto;max-height:75vh;border-radius:6px;background:#808890;cursor:zoom-in}
figure.large svg{max-height:90vh;cursor:zoom-out}
figcaption{font-size:.86rem;margin-top:4px;overflow-wrap:anywhere}
.thing rect,.thing .under{fill:none}
.thing rect,.thing path{stroke-width:2;vector-effect:non-scaling-stroke;stroke-linejoin:round}
.thing .under{stroke:#000;stroke-opacity:.5;stroke-width:4}
.thing .fill{fill-opacity:.26;fill-rule:evenodd}
.thing:hover .fill{fill-opacity:.5}
.thing:hover rect{stroke-width:4}
.ignored rect,.ignored path{stroke-dasharray:6 5}
.ignored .fill{fill-opacity:.08}
.layer{opacity:.55;image-rendering:pixelated}
.name{fill:#fff;stroke:#000;stroke-opacity:.75;paint-order:stroke;stroke-linejoin:round;font-weight:600;
pointer-events:none}
.off{opacity:.13}.name.off{opacity:0}
.hide-outlines .thing{display:none}.hide-names .name{display:none}
:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
footer{padding-bottom:30px;color:var(--soft);font-size:.86rem}
@media print{nav{position:static}}
"""

SCRIPT = """
"use strict";
const figures = Array.from(document.querySelectorAll("figure"));
const classes = Array.from(document.querySelectorAll(".classes li"));
let chosen = "";
const show = (label) => {
  chosen = label;
  for (const item of classes) item.setAttribute("aria-pressed", String(item.dataset.class === label));
  for (const figure of figures) {
    figure.hidden = label !== "" && !figure.dataset.classes.split(" ").includes(label);
    for (const drawn of figure.querySelectorAll("[data-class]")) {
      drawn.classList.toggle("off", label !== "" && drawn.dataset.class !== label);
    }
  }
};
const act = (element, does) => {
  element.addEventListener("click", does);
  element.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); does(); }
  });
};
for (const item of classes) {
  item.setAttribute("role", "button");
  item.setAttribute("aria-pressed", "false");
  item.tabIndex = 0;
  act(item, () => show(chosen === item.dataset.class ? "" : item.dataset.class));
}
for (const figure of figures) act(figure.querySelector("svg"), () => figure.classList.toggle("large"));
document.querySelector(".switches").hidden = false;
for (const box of document.querySelectorAll("[data-switch]")) {
  box.addEventListener("change", () => document.body.classList.toggle("hide-" + box.dataset.switch, !box.checked));
}
document.addEventListener("keydown", (event) => { if (event.key === "Escape") show(""); });
"""
