"""How the page looks: light and dark, on paper and on a phone."""

STYLE = """
:root{color-scheme:light dark;--ground:#fff;--raised:#f4f5f7;--ink:#1b1f24;--soft:#55606e;
--line:#d5dae1;--first:#9db8d9;--second:#1f5fa8;--warm:#a1490a;--shade:#f3dfc4}
@media (prefers-color-scheme:dark){:root{--ground:#14171b;--raised:#1e2329;--ink:#e8ebef;
--soft:#a3adba;--line:#3a424d;--first:#3d5877;--second:#7fb5f0;--warm:#f0a868;--shade:#4a3824}}
*{box-sizing:border-box}
html{background:var(--ground);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
body{max-width:62rem;margin:0 auto;padding:1rem 1.25rem 4rem}
h1{font-size:1.6rem;line-height:1.25;margin:.5rem 0;overflow-wrap:anywhere}
h2{font-size:1.25rem;margin:2.5rem 0 .5rem;padding-top:.75rem;border-top:1px solid var(--line)}
p{margin:.5rem 0;max-width:44rem}
.soft,.legend,caption,figcaption,dt,nav{color:var(--soft)}
a{color:var(--second)}
:focus-visible{outline:3px solid var(--second);outline-offset:2px}
nav ul{display:flex;flex-wrap:wrap;gap:.25rem 1rem;padding:0;list-style:none}
nav a{display:inline-block;padding:.25rem 0}
dl{display:grid;grid-template-columns:repeat(auto-fit,minmax(10rem,1fr));gap:.75rem;margin:1rem 0}
dl div{background:var(--raised);border-radius:.5rem;padding:.6rem .8rem}
dt{font-size:.85rem}
dd{margin:0;font-size:1.1rem;font-weight:600;overflow-wrap:anywhere;unicode-bidi:isolate}
.scroll{overflow-x:auto;margin:1rem 0}
table{border-collapse:collapse;width:max-content;min-width:100%;font-size:.9rem;font-variant-numeric:tabular-nums}
caption{text-align:left;font-weight:600;padding:.25rem 0}
th,td{text-align:left;vertical-align:top;padding:.35rem .75rem .35rem 0;
border-bottom:1px solid var(--line);unicode-bidi:isolate}
tbody th{font-weight:500}
td,tbody th{overflow-wrap:break-word;max-width:26rem;overflow-y:hidden}
thead th{white-space:nowrap}
.number{text-align:right}
.number,.when{white-space:nowrap}
.number+:not(.number){padding-left:1rem}
figure{margin:1.25rem 0}
figcaption{font-weight:600;font-size:.9rem}
.bars{list-style:none;margin:.5rem 0;padding:0}
.bars li{display:flex;flex-wrap:wrap;justify-content:space-between;gap:0 1rem;margin:.55rem 0;
font-size:.9rem}
.bars .name{overflow-wrap:anywhere;unicode-bidi:isolate}
.bars .words{color:var(--soft)}
.bar{flex:0 0 100%;width:100%;height:.8rem;display:block;background:var(--raised)}
.whole{fill:var(--first)}.rest{fill:var(--second)}
.plot{display:flex;gap:.5rem;height:14rem}
.plot svg{flex:1;min-width:0;height:100%;display:block}
.y{display:flex;flex-direction:column;justify-content:space-between;text-align:right}
.x{display:flex;justify-content:space-between;gap:1rem}
.x,.y{color:var(--soft);font-size:.8rem;font-variant-numeric:tabular-nums}
path{fill:none;stroke-width:2;vector-effect:non-scaling-stroke}
.line{stroke:var(--second)}
.area{fill:var(--first);fill-opacity:.35;stroke:none}
.grid{stroke:var(--line);stroke-width:1}
.level,.mark{stroke:var(--warm);stroke-dasharray:5 4}
.shaded{fill:var(--shade)}
.legend{font-size:.85rem}
.key{display:inline-block;width:.8rem;height:.8rem;margin:0 .35rem 0 .75rem;
vertical-align:-.05rem}
.key.whole{background:var(--first)}.key.rest{background:var(--second)}
.key.shaded{background:var(--shade);border:1px solid var(--warm)}
.key.level{height:0;border-top:3px dashed var(--warm);vertical-align:.25rem}
.key.mark{width:0;border-left:3px dashed var(--warm)}
@media (max-width:36rem){html{font-size:15px}body{padding:.75rem .9rem 3rem}.plot{height:11rem}
.x span{max-width:6rem}.x span:last-child{text-align:right}td,tbody th{max-width:16rem}}
@media print{nav{display:none}.scroll{overflow:visible}figure,tr{break-inside:avoid}}
"""
