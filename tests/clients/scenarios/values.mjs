// Every kind of value, there and back: as an argument, as a result, and through the database.
import { api, assert, connect, http, scenario } from "./harness.mjs";

const bytes = new Uint8Array([0, 1, 127, 128, 255]).buffer;

const VALUES = {
  null: null,
  true: true,
  false: false,
  zero: 0,
  "minus zero": -0,
  fraction: 1.5,
  "a large number": 2 ** 53,
  "beyond exact integers": 1e300,
  smallest: 5e-324,
  infinity: Infinity,
  "minus infinity": -Infinity,
  "not a number": NaN,
  int64: 5n,
  "the least int64": -(2n ** 63n),
  "the greatest int64": 2n ** 63n - 1n,
  "an empty string": "",
  "all of Unicode": "é \u{1F600} \u0000 \uFFFF 日本",
  "what looks like markup": '{"$integer":"AA=="} \\ " $',
  bytes,
  "no bytes": new ArrayBuffer(0),
  array: [1, [2n, ["three"]], null],
  object: { b: 1, a: { nested: [{}] }, "a key": "with a space", "": "no key at all" },
  deep: Array.from({ length: 14 }).reduce((inner) => [inner], "bottom"),
};

function same(actual, expected, name) {
  assert.deepStrictEqual(actual, expected, name);
  if (Object.is(expected, -0)) assert.ok(Object.is(actual, -0), name);
}

scenario("every value comes back as it was over the socket", async () => {
  const client = connect();
  for (const [name, value] of Object.entries(VALUES)) same(await client.query(api.values.echo, { value }), value, name);
});

scenario("every value comes back as it was over HTTP", async () => {
  for (const [name, value] of Object.entries(VALUES)) same(await http.query(api.values.echo, { value }), value, name);
});

scenario("every value comes back as it was from the database", async () => {
  const client = connect();
  for (const [name, content] of Object.entries(VALUES)) {
    await client.mutation(api.values.store, { name, content });
    same(await client.query(api.values.load, { name }), content, name);
  }
});

scenario("declared types take what they say", async () => {
  const client = connect();
  assert.equal(await client.query(api.values.next_int64, { n: 2n ** 53n }), 2n ** 53n + 1n);
  await assert.rejects(client.query(api.values.next_int64, { n: 5 }), /n/);
  const reversed = await client.query(api.values.reverse_bytes, { data: bytes });
  assert.deepEqual([...new Uint8Array(reversed)], [255, 128, 127, 1, 0]);
});
