import { LRUCache } from "lru-cache";
import { isServerName } from "../matrix/identifiers.ts";
import type { ServerName } from "../matrix/identifiers.ts";
import { isJsonObject } from "../matrix/json.ts";
import { timeLeft } from "../storage/time-left.ts";

/** An answer to `GET https://{host}/.well-known/matrix/server`, redirects followed. */
export interface WellKnownAnswer {
  readonly status: number;
  readonly cacheControl: string | undefined;
  readonly expires: string | undefined;
  readonly body: string;
}

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const DEFAULT_TTL_MS = 24 * HOUR_MS;
const MAX_TTL_MS = 48 * HOUR_MS;
// A host that forbids caching would otherwise be asked before every single request.
const MIN_TTL_MS = 5 * MINUTE_MS;
const NONE_TTL_MS = HOUR_MS;
const UNREACHABLE_TTL_MS = 10 * MINUTE_MS;
const MAX_HOSTS = 20_000;

function clampTtl(ms: number): number {
  return Math.min(Math.max(ms, MIN_TTL_MS), MAX_TTL_MS);
}

/** How long an answer may be kept, in milliseconds. */
export function wellKnownTtl(answer: WellKnownAnswer, now: number): number {
  const directives = answer.cacheControl?.toLowerCase() ?? "";
  if (/\b(?:no-store|no-cache)\b/.test(directives)) return MIN_TTL_MS;
  const maxAge = /\bmax-age\s*=\s*"?(\d+)/.exec(directives)?.[1];
  if (maxAge !== undefined) return clampTtl(Number(maxAge) * 1000);
  const expires = answer.expires === undefined ? Number.NaN : Date.parse(answer.expires);
  return Number.isNaN(expires) ? DEFAULT_TTL_MS : clampTtl(expires - now);
}

function delegateIn(answer: WellKnownAnswer): ServerName | undefined {
  if (answer.status !== 200) return undefined;
  try {
    const body: unknown = JSON.parse(answer.body);
    const server = isJsonObject(body) ? body["m.server"] : undefined;
    return isServerName(server) ? server : undefined;
  } catch {
    // The specification treats an invalid file as none at all: discovery goes on with its next step.
    return undefined;
  }
}

interface Cached {
  readonly delegate: ServerName | undefined;
  readonly askedAt: number;
  readonly freshUntil: number;
  /** A delegate found once outlives a host that is away for a while. */
  readonly usableUntil: number;
}

const NOTHING: Cached = { delegate: undefined, askedAt: 0, freshUntil: 0, usableUntil: 0 };

function isFresh({ askedAt, freshUntil }: Cached, now: number): boolean {
  return timeLeft(freshUntil, freshUntil - askedAt, now) > 0;
}

/**
 * Looks up a host's delegation, with a cache in memory.
 *
 * @param fetch throws if the host can't be asked
 * @see https://spec.matrix.org/v1.19/server-server-api/#getwell-knownmatrixserver
 */
export function createWellKnownLookup(
  fetch: (hostname: string) => Promise<WellKnownAnswer>,
  now: () => number,
): (hostname: string) => Promise<ServerName | undefined> {
  const cache = new LRUCache<string, Cached>({ max: MAX_HOSTS });
  const underWay = new Map<string, Promise<ServerName | undefined>>();

  async function ask(hostname: string): Promise<WellKnownAnswer | undefined> {
    try {
      return await fetch(hostname);
    } catch {
      // "If the request fails, continue": why it failed decides nothing but how soon it is tried again.
      return undefined;
    }
  }

  async function refresh(hostname: string, known: Cached | undefined): Promise<ServerName | undefined> {
    const answer = await ask(hostname);
    const at = now();
    const delegate = answer === undefined ? undefined : delegateIn(answer);
    if (answer !== undefined && delegate !== undefined) {
      cache.set(hostname, {
        delegate,
        askedAt: at,
        freshUntil: at + wellKnownTtl(answer, at),
        usableUntil: at + MAX_TTL_MS,
      });
      return delegate;
    }
    const away = answer === undefined || answer.status >= 500;
    const kept = known !== undefined && away && known.usableUntil > at ? known : NOTHING;
    cache.set(hostname, { ...kept, askedAt: at, freshUntil: at + (away ? UNREACHABLE_TTL_MS : NONE_TTL_MS) });
    return kept.delegate;
  }

  return (hostname) => {
    const known = cache.get(hostname);
    if (known !== undefined && isFresh(known, now())) return Promise.resolve(known.delegate);
    const running = underWay.get(hostname);
    if (running !== undefined) return running;
    const started = refresh(hostname, known).finally(() => underWay.delete(hostname));
    underWay.set(hostname, started);
    return started;
  };
}
