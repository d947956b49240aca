// Pagination: pages keep their ends, also over a reconnect.
import { api, assert, connect, connection, http, scenario, server, watch } from "./harness.mjs";

const positions = (result) => result.page.map((item) => item.position);

/** Subscribes to a page as usePaginatedQuery does. */
function page(client, list, cursor, numItems = 3) {
  return watch(client, api.items.page, { list, paginationOpts: { cursor, numItems, id: 1 } });
}

scenario("pages follow each other to the end", async () => {
  await http.mutation(api.items.fill, { list: "plain", count: 7 });
  const client = connect();
  const read = [];
  let cursor = null;
  for (let done = false; !done; ) {
    const { last } = await client
      .query(api.items.page, { list: "plain", paginationOpts: { cursor, numItems: 3 } })
      .then((last) => ({ last }));
    read.push(positions(last));
    cursor = last.continueCursor;
    done = last.isDone;
  }
  assert.deepEqual(read, [[0, 1, 2], [3, 4, 5], [6]]);
});

scenario("a page grows and shrinks, and its neighbour stays as it is", async () => {
  await http.mutation(api.items.fill, { list: "growing", count: 7 });
  const client = connect();
  const first = page(client, "growing", null);
  await first.until((result) => result.page.length === 3);
  const second = page(client, "growing", first.last.continueCursor);
  await second.until((result) => result.page.length === 3);

  await http.mutation(api.items.insert, { list: "growing", position: 0.5 });
  await first.until((result) => result.page.length === 4);
  assert.deepEqual(positions(first.last), [0, 0.5, 1, 2]);
  assert.deepEqual(positions(second.last), [3, 4, 5]);

  await http.mutation(api.items.remove, { item: first.last.page[3]._id });
  await first.until((result) => result.page.length === 3);
  assert.deepEqual(positions(first.last), [0, 0.5, 1]);
  assert.deepEqual(positions(second.last), [3, 4, 5]);
});

scenario("the client's own paginated subscription loads more and stays live", async () => {
  await http.mutation(api.items.fill, { list: "hook", count: 7 });
  const client = connect();
  const results = [];
  const pages = client.onPaginatedUpdate_experimental(api.items.page, { list: "hook" }, { initialNumItems: 3 }, (result) => results.push(result));
  const until = async (length) => {
    const deadline = Date.now() + 20_000;
    while (pages.getCurrentValue()?.results.length !== length) {
      assert.ok(Date.now() < deadline, `waited in vain for ${length} items: ${JSON.stringify(pages.getCurrentValue())}`);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    return pages.getCurrentValue();
  };
  (await until(3)).loadMore(3);
  await until(6);
  await http.mutation(api.items.insert, { list: "hook", position: 1.5 });
  const current = await until(7);
  assert.deepEqual(
    current.results.map((item) => item.position),
    [0, 1, 1.5, 2, 3, 4, 5],
  );
  assert.equal(current.status, "CanLoadMore");
});

scenario("pages keep their ends when the server was killed and started again", async () => {
  await http.mutation(api.items.fill, { list: "kept", count: 7 });
  const client = connect();
  const first = page(client, "kept", null);
  await first.until((result) => result.page.length === 3);
  const second = page(client, "kept", first.last.continueCursor);
  await second.until((result) => result.page.length === 3);
  const ends = [first.last.continueCursor, second.last.continueCursor];

  await server.kill();
  await connection(client, (state) => !state.isWebSocketConnected);
  await server.start();
  await http.mutation(api.items.insert, { list: "kept", position: 0.5 });
  await first.until((result) => result.page.length === 4);
  assert.deepEqual(positions(first.last), [0, 0.5, 1, 2]);
  assert.deepEqual(positions(second.last), [3, 4, 5]);
  assert.deepEqual([first.last.continueCursor, second.last.continueCursor], ends);
});

scenario("a cursor that was never given is refused in the words that clients look for", async () => {
  await assert.rejects(connect().query(api.items.page, { list: "plain", paginationOpts: { cursor: "made up", numItems: 3 } }), (error) => {
    assert.match(error.message, /InvalidCursor/);
    assert.deepEqual(error.data, { isConvexSystemError: true, paginationError: "InvalidCursor" });
    return true;
  });
});
