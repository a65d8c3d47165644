import { errors } from "undici";

type FailureKind =
  /** No connection, or it broke off. */
  | "unreachable"
  /** No answer in time. */
  | "timeout"
  /** An answer with another status than 2xx. */
  | "bad-status";

interface FailureDetails {
  readonly kind: FailureKind;
  readonly reason: string;
  /** Of a bad status. */
  readonly status?: number;
  /** Of a bad status: how its body begins. */
  readonly body?: string;
  readonly cause?: unknown;
}

/** An application service did not do what it was asked. */
export class AppserviceFailure extends Error {
  override readonly name = "AppserviceFailure";
  readonly code = "appservice.failure";
  readonly kind: FailureKind;
  readonly reason: string;
  readonly status: number | undefined;
  readonly body: string | undefined;

  constructor({ kind, reason, status, body, cause }: FailureDetails) {
    super(`the application service failed: ${reason}`, { cause });
    this.kind = kind;
    this.reason = reason;
    this.status = status;
    this.body = body;
  }
}

/** What an error of the network means. */
export function failureOf(error: unknown): AppserviceFailure {
  if (error instanceof AppserviceFailure) return error;
  const tooLate =
    error instanceof errors.HeadersTimeoutError ||
    error instanceof errors.BodyTimeoutError ||
    error instanceof errors.ConnectTimeoutError ||
    (error instanceof DOMException && error.name === "TimeoutError");
  const told = error instanceof AggregateError ? error.errors[0] : error;
  const message = told instanceof Error ? told.message : String(told);
  return tooLate
    ? new AppserviceFailure({ kind: "timeout", reason: "no answer in time", cause: error })
    : new AppserviceFailure({ kind: "unreachable", reason: message, cause: error });
}
