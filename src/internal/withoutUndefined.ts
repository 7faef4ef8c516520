/** Returns the object without its fields that are `undefined`, so that an absent option is an absent field. */
export const withoutUndefined = <A extends object>(fields: A): A =>
  Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as A
