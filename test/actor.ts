import { type Actor, EVERYTHING } from '../src/domain/actor.ts';

/** An editor, from somewhere. */
export const ANN: Actor = {
  name: 'ann',
  role: 'editor',
  scope: EVERYTHING,
  tokenId: 'annannan',
  address: '192.0.2.7',
  requestId: 'req-1',
};
