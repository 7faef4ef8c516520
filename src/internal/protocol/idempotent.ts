/**
 * The methods that may be sent again when it is not known whether the server has acted on the first: they only read, or
 * whatever they do is the same when it is done twice. All others, `turn/start` above all, are sent once.
 */
import type { ClientRequests } from "./generated/methods.ts"

const methods: ReadonlyArray<keyof ClientRequests> = [
  // Read
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
  // The same when done twice
  "thread/name/set",
  "thread/resume",
  "thread/unsubscribe",
  "turn/interrupt"
]

const repeatable: ReadonlySet<string> = new Set(methods)

export const isIdempotent = (method: string): boolean => repeatable.has(method)
