import type { Id, Message } from "./api";

const PREFIX = "unsent-";
let count = 0;

/** An id for a message that only this page knows yet. */
export const unsentId = () => `${PREFIX}${count++}` as Id<"messages">;

export const isUnsent = (message: Message) => message._id.startsWith(PREFIX);
