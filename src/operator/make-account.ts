import { randomBytes } from "node:crypto";
import type { UserId } from "../matrix/identifiers.ts";
import { checkNameIsFree, createAccount, openSession } from "../rooms/accounts/accounts.ts";
import type { OperatorContext } from "./context.ts";

/** A new account with a first session. */
export interface NewAccount {
  readonly userId: UserId;
  readonly password: string;
  readonly accessToken: string;
  readonly deviceId: string;
}

/** Makes an account whatever the setting for registration; without a password, one is made up. */
export async function makeAccount(
  ctx: OperatorContext,
  { name, password = randomBytes(12).toString("base64url") }: { readonly name: string; readonly password?: string },
): Promise<NewAccount> {
  await checkNameIsFree(ctx, name);
  const userId = await createAccount(ctx, { localpart: name, password });
  const session = await openSession(ctx, { userId, deviceId: undefined, displayName: undefined });
  return { userId, password, accessToken: session.accessToken, deviceId: session.deviceId };
}
