/**
 * The idempotent methods, which are safe to send twice: they only read, or a second request changes nothing more. Any other method, such as
 * `turn/start`, is sent once.
 */
import type { ClientRequests } from "./generated/methods.ts"

const methods: ReadonlyArray<keyof ClientRequests> = [
  // Only read.
  "account/rateLimits/read",
  "account/read",
  "account/securitySetup/read",
  "account/usage/read",
  "account/workspaceMessages/read",
  "accountSession/list",
  "app/installed",
  "app/list",
  "app/read",
  "collaborationMode/list",
  "config/read",
  "configRequirements/read",
  "environment/info",
  "environment/status",
  "experimentalFeature/list",
  "externalAgentConfig/detect",
  "externalAgentConfig/import/readHistories",
  "fs/getMetadata",
  "fs/readDirectory",
  "fs/readFile",
  "fuzzyFileSearch",
  "hooks/list",
  "mcpServer/resource/read",
  "mcpServerStatus/list",
  "memory/status",
  "model/list",
  "modelProvider/capabilities/read",
  "modelProvider/list",
  "permissionProfile/list",
  "plugin/installed",
  "plugin/list",
  "plugin/read",
  "plugin/search",
  "plugin/share/list",
  "plugin/skill/read",
  "project/list",
  "project/read",
  "remoteControl/client/list",
  "remoteControl/pairing/status",
  "remoteControl/status/read",
  "server/diagnostics",
  "skills/list",
  "thread/attachment/list",
  "thread/attachmentOwner/list",
  "thread/backgroundTerminals/list",
  "thread/goal/get",
  "thread/items/list",
  "thread/items/read",
  "thread/list",
  "thread/loaded/list",
  "thread/memory/read",
  "thread/queue/list",
  "thread/read",
  "thread/realtime/listVoices",
  "thread/search",
  "thread/searchOccurrences",
  "thread/timeline/list",
  "thread/turns/list",
  "threadSection/list",
  "userVerification/status",
  "windowsSandbox/readiness",
  // Change nothing more the second time.
  "thread/name/set",
  "thread/resume",
  "thread/unsubscribe",
  "turn/interrupt"
]

const idempotent: ReadonlySet<string> = new Set(methods)

export const isIdempotent = (method: string): boolean => idempotent.has(method)
