// Node with better-sqlite3: one transaction a request, durable when it is answered.
//   node sqlite.mjs PORT FILE
import { randomUUID } from "node:crypto";
import Database from "better-sqlite3";
import { serve } from "./server.mjs";

const db = new Database(process.argv[3]);
db.pragma("journal_mode = WAL");
db.pragma("synchronous = FULL");
db.exec(`
  CREATE TABLE accounts (_id TEXT PRIMARY KEY, doc TEXT NOT NULL) WITHOUT ROWID;
  CREATE INDEX by_number ON accounts (doc ->> '$.number');
`);
const insert = db.prepare("INSERT INTO accounts (_id, doc) VALUES (?, ?)");
const find = db.prepare("SELECT _id, doc FROM accounts WHERE doc ->> '$.number' = ?");
const update = db.prepare("UPDATE accounts SET doc = ? WHERE _id = ?");
const sum = db.prepare("SELECT sum(doc ->> '$.balance') AS money FROM accounts");

const fill = db.transaction(({ start, end, balance }) => {
  for (let number = start; number < end; number++) {
    const _id = randomUUID();
    insert.run(_id, JSON.stringify({ _id, _creationTime: Date.now(), number, balance }));
  }
});

function account(number) {
  const row = find.get(number);
  if (row === undefined) throw new Error("There is no such account.");
  return JSON.parse(row.doc);
}

const transfer = db.transaction(({ source, target, amount }) => {
  const debtor = account(source);
  const creditor = account(target);
  if (debtor.balance < amount) throw new Error("Not enough money.");
  debtor.balance -= amount;
  creditor.balance += amount;
  update.run(JSON.stringify(debtor), debtor._id);
  update.run(JSON.stringify(creditor), creditor._id);
});

serve({
  "accounts:fill": fill.immediate,
  "accounts:transfer": transfer.immediate,
  "accounts:total": () => [sum.get().money, "", true],
  settings: () => ({
    version: db.prepare("SELECT sqlite_version()").pluck().get(),
    journal_mode: db.pragma("journal_mode", { simple: true }),
    synchronous: db.pragma("synchronous", { simple: true }), // 2 is FULL
  }),
});
