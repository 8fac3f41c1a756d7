// Punctuality as bars, in the colours of the page; drawn anew when the figures are others.
(() => {
  "use strict";

  const place = document.getElementById("chart");
  let chart = null;

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  function draw() {
    const [names, shares] = JSON.parse(document.getElementById("figures").dataset.chart);
    chart?.destroy();
    chart = null;
    if (!names.length) return;
    const font = "13px B612, sans-serif";
    const ink = colour("--ink");
    const quiet = { stroke: ink, font, ticks: { show: false } };
    chart = new uPlot(
      {
        width: place.clientWidth,
        height: 34 * names.length + 40,
        cursor: { show: false },
        legend: { show: false },
        padding: [0, 24, 0, 0],
        scales: {
          x: { time: false, ori: 1, dir: -1, range: [-0.6, names.length - 0.4] },
          y: { ori: 0, range: [0, 100] },
        },
        axes: [
          {
            ...quiet,
            side: 3,
            size: 124,
            gap: 8,
            grid: { show: false },
            splits: () => names.map((_, index) => index),
            values: () => names,
          },
          {
            ...quiet,
            side: 2,
            size: 30,
            grid: { stroke: colour("--line"), width: 1 },
            splits: () => [0, 25, 50, 75, 100],
            values: (_, splits) => splits.map((share) => `${share} %`),
          },
        ],
        series: [
          {},
          {
            fill: colour("--bars"),
            stroke: colour("--bars"),
            width: 0,
            points: { show: false },
            paths: uPlot.paths.bars({ size: [0.62, 30] }),
          },
        ],
      },
      [names.map((_, index) => index), shares],
      place,
    );
  }

  document.addEventListener("DOMContentLoaded", async () => {
    await document.fonts.load("13px B612");
    draw();
    document.body.addEventListener("htmx:afterSwap", (event) => {
      if (event.target.id === "carriers") draw();
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
    addEventListener("resize", draw);
  });
})();
