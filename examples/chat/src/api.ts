// The functions in app_functions/ and the documents in schema.py, as TypeScript sees them.
// Everything here is types; at run time `api` is one object that turns property names into paths.
import { anyApi, type FunctionReference, type PaginationOptions, type PaginationResult } from "convex/server";
import type { GenericId } from "convex/values";

export type Id<Table extends string> = GenericId<Table>;

type Document<Table extends string> = { _id: Id<Table>; _creationTime: number };

export type User = Document<"users"> & { name: string };

export const EMOJIS = ["👍", "❤️", "😂", "🎉", "👀"] as const;
export type Emoji = (typeof EMOJIS)[number];

export type Message = Document<"messages"> & {
  channel: Id<"channels">;
  author: Id<"users">;
  body: string;
  reactions: { emoji: Emoji; users: Id<"users">[] }[];
  edited?: number;
};

export type ChannelSummary = {
  id: Id<"channels">;
  name: string;
  topic: string;
  joined: boolean;
  unread: number;
};

type Query<Args extends Record<string, unknown>, Result> = FunctionReference<"query", "public", Args, Result>;
type Mutation<Args extends Record<string, unknown>, Result = null> = FunctionReference<"mutation", "public", Args, Result>;

type Session = { session: string };
type InChannel = { channel: Id<"channels"> };
type OfMessage = { message: Id<"messages"> };

export const api = anyApi as unknown as {
  users: {
    me: Query<Session, User | null>;
    everyone: Query<{}, User[]>;
    join: Mutation<Session & { name: string }, Id<"users">>;
  };
  channels: {
    overview: Query<Session, ChannelSummary[]>;
    members: Query<InChannel, User[]>;
    create: Mutation<Session & { name: string; topic?: string }, Id<"channels">>;
    join: Mutation<Session & InChannel>;
    leave: Mutation<Session & InChannel>;
    mark_read: Mutation<Session & InChannel & { until: number }>;
  };
  messages: {
    page: Query<InChannel & { paginationOpts: PaginationOptions }, PaginationResult<Message>>;
    send: Mutation<Session & InChannel & { body: string }, Id<"messages">>;
    edit: Mutation<Session & OfMessage & { body: string }>;
    remove: Mutation<Session & OfMessage>;
    react: Mutation<Session & OfMessage & { emoji: Emoji }>;
  };
  presence: {
    here: Query<{}, Id<"users">[]>;
    writing: Query<InChannel, Id<"users">[]>;
    heartbeat: Mutation<Session>;
    leave: Mutation<Session>;
    set_typing: Mutation<Session & InChannel & { typing: boolean }>;
  };
};
