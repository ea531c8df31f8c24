// Validates AsyncAPI documents with the official parser: `node validate.mjs FILE...`; exits with 1 if one has an error.
import { readFileSync } from 'node:fs';
import { Parser } from '@asyncapi/parser';

const parser = new Parser();
const ERROR = 0;
let failed = false;
for (const path of process.argv.slice(2)) {
  const { document, diagnostics } = await parser.parse(readFileSync(path, 'utf8'));
  for (const found of diagnostics.filter((each) => each.severity === ERROR)) {
    console.log(`${path}: ${found.path.join('.')}: ${found.message}`);
  }
  failed ||= !document;
}
process.exit(failed ? 1 : 0);
