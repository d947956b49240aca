// Node with pg: one serializable transaction a request, run again while Postgres says so.
//   node postgres.mjs PORT URL
import { randomUUID } from "node:crypto";
import { availableParallelism } from "node:os";
import pg from "pg";
import { serve } from "./server.mjs";

const SCHEMA = "reactor_benchmark_transfer"; // its own, for the database may be somebody's
const AGAIN = new Set(["40001", "40P01"]); // serialization failure, deadlock
// At Zipf 1.5 more connections only collide: on two cores 10, pg's default, spent 1.5 to 2 times the CPU of 4 on a transfer, 32 four times.
const POOL = 2 * availableParallelism();

const pool = new pg.Pool({ connectionString: process.argv[3], max: POOL, options: `-c search_path=${SCHEMA}` });
await pool.query(`
  DROP SCHEMA IF EXISTS ${SCHEMA} CASCADE;
  CREATE SCHEMA ${SCHEMA};
  CREATE TABLE accounts (_id text PRIMARY KEY, doc jsonb NOT NULL);
  CREATE INDEX by_number ON accounts (((doc ->> 'number')::bigint));
`);
process.on("SIGTERM", async () => {
  await pool.query(`DROP SCHEMA ${SCHEMA} CASCADE`);
  process.exit(0);
});

const find = { name: "find", text: "SELECT doc FROM accounts WHERE (doc ->> 'number')::bigint = $1" };
const update = { name: "update", text: "UPDATE accounts SET doc = $1 WHERE _id = $2" };

/** Runs work in a serializable transaction, again until it is not in the way of another one. */
async function transaction(work) {
  const client = await pool.connect();
  try {
    for (;;) {
      try {
        await client.query("BEGIN ISOLATION LEVEL SERIALIZABLE");
        const value = await work(client);
        await client.query("COMMIT");
        return value;
      } catch (error) {
        await client.query("ROLLBACK");
        if (!AGAIN.has(error.code)) throw error;
      }
    }
  } finally {
    client.release();
  }
}

async function account(client, number) {
  const { rows } = await client.query({ ...find, values: [number] });
  if (rows.length === 0) throw new Error("There is no such account.");
  return rows[0].doc;
}

const save = (client, doc) => client.query({ ...update, values: [JSON.stringify(doc), doc._id] });

serve({
  "accounts:fill": async ({ start, end, balance }) => {
    const docs = [];
    for (let number = start; number < end; number++) {
      docs.push({ _id: randomUUID(), _creationTime: Date.now(), number, balance });
    }
    const insert = "INSERT INTO accounts (_id, doc) SELECT doc ->> '_id', doc FROM jsonb_array_elements($1) AS doc";
    await transaction((client) => client.query(insert, [JSON.stringify(docs)]));
    await pool.query("ANALYZE accounts"); // as autovacuum would a minute later; without it each find locks more than it reads
  },
  "accounts:transfer": ({ source, target, amount }) =>
    transaction(async (client) => {
      const debtor = await account(client, source);
      const creditor = await account(client, target);
      if (debtor.balance < amount) throw new Error("Not enough money.");
      debtor.balance -= amount;
      creditor.balance += amount;
      // In one order in all transactions. As debit and credit come, most transfers at Zipf 1.5 waited for a deadlock to be found: 1 s.
      for (const doc of debtor._id < creditor._id ? [debtor, creditor] : [creditor, debtor]) await save(client, doc);
    }),
  "accounts:total": async () => {
    const { rows } = await pool.query("SELECT sum((doc ->> 'balance')::float8) AS money FROM accounts");
    return [rows[0].money, "", true];
  },
  settings: async () => {
    const { rows } = await pool.query(
      `SELECT current_setting('server_version') AS version, current_setting('fsync') AS fsync,
        current_setting('synchronous_commit') AS synchronous_commit`,
    );
    return { ...rows[0], pool: POOL };
  },
});
