// How the HTML report is made: one file that opens by double-click. Read by `allure generate`; see fixtures/report.py.
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";

const results = process.env.ALLURE_RESULTS ?? "build/allure-results";
const rules = join(results, "categories.json");

export default {
  name: "NLP inference on the edge",
  output: process.env.ALLURE_REPORT ?? "build/report",
  historyPath: process.env.ALLURE_HISTORY ?? "build/history.jsonl",
  historyLimit: 50,
  // Allure 3 takes categories from here and does not read the file among the results.
  categories: existsSync(rules) ? JSON.parse(readFileSync(rules, "utf8")) : [],
  plugins: {
    awesome: {
      options: {
        singleFile: true,
        reportLanguage: "en",
        groupBy: ["feature", "story"],
        sections: ["charts", "timeline"],
        charts: [
          { type: "currentStatus", title: "Tests by status" },
          { type: "statusDynamics", title: "Status over the last runs" },
          { type: "successRateDistribution", title: "Success by suite, task and backend" },
          { type: "durations", title: "How long tests take" },
        ],
      },
    },
  },
};
