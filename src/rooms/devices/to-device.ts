import { z } from "zod";
import { randomUUID } from "node:crypto";
import { isUserId, serverNameOf, type ServerName, type UserId } from "../../matrix/identifiers.ts";
import { isJsonObject, type JsonObject } from "../../matrix/json.ts";
import type { Session } from "../../storage/accounts.ts";
import type { Connection } from "../../storage/database.ts";
import { addEdusToOutbox } from "../../storage/outbox-edus.ts";
import { takeStreamPositions } from "../../storage/streams.ts";
import {
  appendToDevice,
  beginToDeviceTransaction,
  noteReceivedToDevice,
  type ToDeviceMessage,
} from "../../storage/to-device.ts";
import type { RoomsContext } from "../context.ts";
import { commit } from "../failpoints.ts";
import { EduUnusable } from "../edu-unusable.ts";
import type { DevicesContext } from "./announce-device-changes.ts";

/** By user and then by device, the content for it; `*` stands for all of the user's devices. */
export type ToDeviceContents = ReadonlyMap<UserId, Readonly<Record<string, JsonObject>>>;

/**
 * Sends messages to devices: into the inboxes of our own users' devices, and to the servers of the others. Once for
 * every transaction id of a device.
 *
 * @see https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3sendtodeviceeventtypetxnid
 */
export async function sendToDevices(
  ctx: DevicesContext,
  sender: Session & { readonly txnId: string },
  { type, contents }: { readonly type: string; readonly contents: ToDeviceContents },
): Promise<void> {
  await commit(ctx, "send to devices", async (tx) => {
    if (!(await beginToDeviceTransaction(tx, sender, sender.txnId))) return;
    const servers = usersByServer(contents);
    const ours = servers.get(ctx.serverName) ?? {};
    servers.delete(ctx.serverName);
    await deliverHere(tx, messagesOf(ours, { sender: sender.userId, type }));
    await addEdusToOutbox(tx, {
      edus: [...servers].map(([server, messages]) => ({
        destinations: [server],
        eduType: "m.direct_to_device",
        content: { sender: sender.userId, type, message_id: randomUUID(), messages },
      })),
    });
  });
}

type ContentsByUser = Record<UserId, Readonly<Record<string, JsonObject>>>;

function usersByServer(contents: ToDeviceContents): Map<ServerName, ContentsByUser> {
  const servers = new Map<ServerName, ContentsByUser>();
  for (const [userId, devices] of contents) {
    const server = serverNameOf(userId) ?? "";
    servers.set(server, { ...servers.get(server), [userId]: devices });
  }
  return servers;
}

function messagesOf(
  contents: Readonly<ContentsByUser>,
  { sender, type }: { readonly sender: UserId; readonly type: string },
): readonly ToDeviceMessage[] {
  return Object.entries(contents).flatMap(([userId, devices]) =>
    Object.entries(devices).map(([deviceId, content]) => ({
      userId: userId as UserId,
      deviceId,
      sender,
      type,
      content,
    })),
  );
}

async function deliverHere(tx: Connection, messages: readonly ToDeviceMessage[]): Promise<void> {
  if (messages.length === 0) return;
  await appendToDevice(tx, { streamId: await takeStreamPositions(tx, 1), messages });
}

const storable = z.string().refine((text) => !text.includes("\0"), "holds a NUL");
const object = z.custom<JsonObject>(isJsonObject, "expected a JSON object");

const directToDevice = z.object({
  sender: z.custom<UserId>((value) => isUserId(value) && !value.includes("\0"), "expected a user id"),
  type: storable,
  message_id: storable.min(1),
  messages: z.record(storable, z.record(storable, object)),
});

/**
 * Messages from a user of another server to devices of our users; one that comes again is not delivered again.
 *
 * @see https://spec.matrix.org/v1.19/server-server-api/#definition-mdirect_to_device
 */
export async function receiveDirectToDevice(ctx: RoomsContext, origin: ServerName, content: JsonObject): Promise<void> {
  const parsed = directToDevice.safeParse(content);
  if (!parsed.success) throw new EduUnusable("it is no message to devices");
  const { sender, type, message_id: messageId, messages } = parsed.data;
  if (serverNameOf(sender) !== origin) throw new EduUnusable(`${sender} is not a user of ${origin}`);
  const ours = Object.entries(messages).flatMap(([userId, devices]) =>
    isUserId(userId) && serverNameOf(userId) === ctx.serverName ? [[userId, devices] as const] : [],
  );
  await commit(ctx, "store messages to devices", async (tx) => {
    if (!(await noteReceivedToDevice(tx, origin, messageId))) return;
    await deliverHere(tx, messagesOf(Object.fromEntries(ours), { sender, type }));
  });
}
