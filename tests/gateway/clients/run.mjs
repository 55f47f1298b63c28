// Run the exported functions of a program, and write traces of those that fail into a file.

import { writeFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [program, report] = process.argv.slice(2);
const failures = {};
for (const [name, check] of Object.entries(await import(pathToFileURL(program)))) {
  try {
    await check();
  } catch (error) {
    failures[name] = `${error.stack}\n${error.responseBody ?? ""}`;
  }
}
writeFileSync(report, JSON.stringify(failures));
