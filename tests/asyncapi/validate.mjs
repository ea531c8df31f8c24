// Validates AsyncAPI documents with the official parser, and their Avro schemas with its own: `node validate.mjs FILE...`.
// Prints each error, a line each; exits with 1 if there is one.
import { readFileSync } from 'node:fs';
import { AvroSchemaParser } from '@asyncapi/avro-schema-parser';
import { Parser } from '@asyncapi/parser';

const parser = new Parser();
parser.registerSchemaParser(AvroSchemaParser());
const ERROR = 0;
let failed = false;
for (const path of process.argv.slice(2)) {
  const { document, diagnostics } = await parser.parse(readFileSync(path, 'utf8'));
  const errors = diagnostics.filter((each) => each.severity === ERROR);
  for (const found of errors) {
    console.log(`${path}: ${found.path.join('.')}: ${found.message}`);
  }
  failed ||= !document || errors.length > 0;
}
process.exit(failed ? 1 : 0);
