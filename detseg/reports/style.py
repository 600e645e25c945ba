"""How reports look, and the little that moves in them."""

from __future__ import annotations

STYLE = """
:root{color-scheme:light dark;--page:#f6f7f9;--card:#fff;--ink:#1b2330;--soft:#5b6675;--line:#dde2e9;--accent:#2563c9;
--good:#15803d;--bad:#c8321f;--warn:#b45f06;--heat:37,99,201;
--c0:#2563c9;--c1:#d9480f;--c2:#2b8a3e;--c3:#9c36b5;--c4:#b88600;--c5:#0b7285;--c6:#c2255c;--c7:#5c6b7a}
@media (prefers-color-scheme:dark){:root{--page:#12161c;--card:#1b212a;--ink:#e7ebf1;--soft:#9aa6b5;--line:#323b48;
--accent:#79a8ff;--good:#4ecb78;--bad:#ff7a66;--warn:#f0a04b;--heat:121,168,255;
--c0:#79a8ff;--c1:#ff9466;--c2:#6bd08a;--c3:#d58bf0;--c4:#e8bf4a;--c5:#5cc8dc;--c6:#ff85b0;--c7:#a9b6c6}}
*{box-sizing:border-box}
html{scroll-behavior:smooth}
body{margin:0;background:var(--page);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;
-webkit-text-size-adjust:100%}
main,header,footer{max-width:1120px;margin:0 auto;padding:0 20px}
header{padding-top:28px}
h1{font-size:1.7rem;line-height:1.2;margin:0 0 4px;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:0 0 6px}
h3{font-size:1rem;margin:18px 0 6px;overflow-wrap:anywhere}
p{margin:0 0 10px;max-width:75ch}
.soft,figcaption,caption{color:var(--soft)}
.small,figcaption{font-size:.86rem}
nav{display:flex;flex-wrap:wrap;gap:4px 16px;margin:12px 0 20px;font-size:.92rem}
a{color:var(--accent);text-decoration:none}a:hover{text-decoration:underline}
section{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:20px;margin:0 0 18px}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(138px,1fr));gap:12px;margin:0 0 18px}
.card{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:12px 16px}
.card b{display:block;font-size:1.65rem;line-height:1.25;font-variant-numeric:tabular-nums}
.card span{display:block;color:var(--soft);font-size:.84rem}
.card .range{color:var(--ink);font-variant-numeric:tabular-nums}
.card .label{color:var(--ink);font-weight:600;font-size:.9rem}
.verdict{border-left:4px solid var(--accent);padding:6px 12px;margin:0 0 12px;font-weight:600}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,400px),1fr));gap:20px}
.pair>*{min-width:0}
figure{margin:0;min-width:0}
figcaption{margin-top:4px;overflow-wrap:anywhere}
svg{display:block;width:100%;height:auto}
.chart{max-width:560px}
.chart text{fill:var(--soft);font-size:12.5px}
.chart .name{fill:var(--ink)}
.grid{stroke:var(--line)}.axis{stroke:var(--soft)}
.ideal{stroke:var(--ink);stroke-dasharray:4 4;fill:none}
.curve{fill:none;stroke-width:1.6}.many .curve{stroke-width:1;opacity:.38}
.curve.all{stroke:var(--ink);stroke-width:2.6;opacity:1}
.curve:hover{stroke-width:3.4;opacity:1}
.bar{fill:var(--c0)}.bar.second{fill:var(--c7)}
.mark{fill:var(--bad);stroke:var(--card);stroke-width:1.5}
.heat{fill:rgb(var(--heat))}.heat.off{fill:var(--bad)}
.cell{stroke:var(--line);fill:none}
.hot{fill:var(--ink)!important;font-size:11px!important;text-anchor:middle}
.s0{stroke:var(--c0)}.s1{stroke:var(--c1)}.s2{stroke:var(--c2)}.s3{stroke:var(--c3)}
.s4{stroke:var(--c4)}.s5{stroke:var(--c5)}.s6{stroke:var(--c6)}.s7{stroke:var(--c7)}
.legend{display:flex;flex-wrap:wrap;gap:2px 14px;font-size:.86rem;color:var(--soft);margin:4px 0 10px;padding:0;
list-style:none}
.legend svg{display:inline-block;width:22px;height:12px;margin-right:5px;vertical-align:-1px}
.scroll{overflow-x:auto;margin:0 -4px;padding:0 4px}
.tall{max-height:70vh;overflow-y:auto}.tall thead th{position:sticky;top:0;background:var(--card);z-index:1}
.tall thead th:first-child{z-index:2}
table{border-collapse:separate;border-spacing:0;width:100%;font-size:.92rem;font-variant-numeric:tabular-nums}
th,td{padding:6px 10px;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
thead th{color:var(--soft);font-weight:600;vertical-align:bottom}
tbody tr:hover td,tbody tr:hover th{background:color-mix(in srgb,var(--accent) 7%,var(--card))}
tbody th,th:first-child{text-align:left;font-weight:500}
th:first-child{position:sticky;left:0;background:var(--card)}
tbody th bdi{display:inline-block;max-width:min(38vw,22em);overflow:hidden;text-overflow:ellipsis;vertical-align:bottom}
th.words{text-align:left}td.words{text-align:left;white-space:normal;min-width:14em}
td .soft{font-size:.84em;margin-left:4px}
thead button{all:unset;cursor:pointer}thead button:focus-visible{outline:2px solid var(--accent)}
th[aria-sort=ascending] button::after{content:" \\2191"}th[aria-sort=descending] button::after{content:" \\2193"}
.better{color:var(--good)}.worse{color:var(--bad)}
.sides{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,300px),1fr));gap:10px;align-items:start}
.sides.four{grid-template-columns:repeat(auto-fit,minmax(min(48%,230px),1fr))}
img.photo{width:100%;height:auto;display:block}.map{image-rendering:pixelated}
.worst{margin:0 0 26px}.worst h3 .soft{font-weight:400}
.crops{display:grid;grid-template-columns:repeat(auto-fill,minmax(150px,1fr));gap:16px 12px}
.photo{border-radius:6px;background:#808890;max-height:70vh}
.photo rect,.photo path{fill:none;stroke-width:2;vector-effect:non-scaling-stroke;stroke-linejoin:round}
.photo .under{stroke:#000;stroke-opacity:.55;stroke-width:4}
.photo .truth,.key.truth{stroke:#5ab0ff}.photo .missed,.key.missed{stroke:#ffb000}
.photo .right,.key.right{stroke:#4be07a}.photo .false,.key.false{stroke:#ff5a48}
.photo .ignored,.key.ignored{stroke:#d8dde3;stroke-dasharray:5 4}
.photo .blank{fill:#6b7480;stroke:none}
.photo .mask{fill-opacity:.18}.photo .mask.truth{fill:#5ab0ff}.photo .mask.missed{fill:#ffb000}
.photo .mask.right{fill:#4be07a}.photo .mask.false{fill:#ff5a48}
.photo text{fill:#fff;paint-order:stroke;stroke:#000;stroke-opacity:.75;stroke-linejoin:round}
.key{fill:none;stroke-width:3}
.swatch{stroke:var(--line)}
dl{display:grid;grid-template-columns:max-content 1fr;gap:4px 16px;margin:0;font-size:.92rem}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
code{font:.92em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
footer{padding-bottom:40px;color:var(--soft);font-size:.86rem}
@media (max-width:560px){td.words{min-width:8em}
main,header,footer{padding-left:12px;padding-right:12px}section{padding:14px}
h1{font-size:1.35rem}dl{grid-template-columns:1fr}dd{margin-bottom:6px}
.cards{grid-template-columns:repeat(2,1fr)}.crops{grid-template-columns:repeat(2,1fr)}}
@media print{nav{display:none}section{break-inside:avoid}}
"""

SCRIPT = """
"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = table.tHead.rows[0].cells;
  Array.from(heads).forEach((head, column) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const body = table.tBodies[0];
      const up = head.getAttribute("aria-sort") === "descending";
      const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
      const rows = Array.from(body.rows).sort((a, b) => {
        const [x, y] = [key(a), key(b)];
        const order = x === "" || y === "" ? (x === "") - (y === "") : column ? x - y : x.localeCompare(y);
        return x === "" || y === "" || up ? order : -order;
      });
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      body.append(...rows);
    });
  });
}
"""
